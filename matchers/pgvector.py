"""Galleries in PostgreSQL with pgvector: one table per embedding model, one partition per domain."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool, PoolTimeout

from matchers.base import Entry, FloatArray, GalleryFace, Match
from matchers.erasure import erase
from matchers.errors import GalleryError, StoreUnavailable, UnknownDomain
from matchers.migrations import migrate
from models.card import ModelCard

Connection = psycopg.Connection[Any]

_POOL_SIZE = 8
# How long to wait for a pooled connection before asking the server directly, which tells at once why there is none.
_PATIENCE = 0.25
_LONG_SECONDS = 600.0
_INDEX_SECONDS = 3600.0
# With so many faces an exact scan still takes milliseconds; a larger domain gets an HNSW index.
_EXACT_LIMIT = 20_000
# An index gives this many candidates per match asked for, and at least so many; they are ranked again exactly.
_CANDIDATES_FACTOR = 4
_CANDIDATES_MIN = 100
# pgvector's limit for an HNSW index on halfvec (its README, "HNSW").
_INDEX_DIMENSIONS = 4000
_INDEXED_SECONDS = 5.0
# A row stored plain must fit into a page of 8 kB; wider embeddings go to TOAST, uncompressed.
_PLAIN_BYTES = 7600
# PostgreSQL cuts names at 63 bytes; 17 are for the domain's digest.
_TABLE_NAME = re.compile(r"[a-z0-9_]{1,32}")
_COLUMNS = "domain, person, source, digest, x, y, w, h, embedding"
_COLUMN_TYPES = ("text", "text", "text", "text", "int4", "int4", "int4", "int4", "vector")

_logger = logging.getLogger(__name__)


class PgvectorStore:
    """Galleries of one embedder in a PostgreSQL database; safe to share between threads.

    Nothing is asked of the database before the first use: then the schema is brought up to date and the pool opened.
    A database that was down is used as soon as it is back. Every method but :meth:`open` and :meth:`close` raises
    :class:`StoreUnavailable` when the database cannot answer, and :class:`GalleryError` when its table holds
    embeddings of another model.

    Args:
        conninfo: ``postgresql://`` URL or ``key=value`` connection string; or what gives it once the server is up, and
            raises :class:`StoreUnavailable` until then.
        embedder: card of the model whose embeddings are stored.
        timeout: seconds until a search or another short question is given up.
        exact_limit: domains of more faces than this are searched through an index.

    Raises:
        StoreUnavailable: the connection string cannot be read.
    """

    def __init__(
        self, conninfo: str | Callable[[], str], embedder: ModelCard, timeout: float, exact_limit: int = _EXACT_LIMIT
    ) -> None:
        self._embedder = embedder
        self._timeout = timeout
        self._exact_limit = exact_limit
        self._conninfo = conninfo
        self._parameters = _parameters(conninfo, timeout) if isinstance(conninfo, str) else {}
        self._table = _table_name(embedder.name)
        self._ready = False
        self._preparing = threading.Lock()
        self._indexed: dict[str, tuple[bool, float]] = {}
        self._pool = self._new_pool()

    def __enter__(self) -> PgvectorStore:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Allow use, also after :meth:`close`. Returns at once, whether the database is up or not."""
        with self._preparing:
            if self._pool.closed:
                self._pool = self._new_pool()
                self._ready = False

    def close(self) -> None:
        """Close all connections; may be called twice."""
        self._pool.close()

    def migrate(self) -> None:
        """Bring the schema up to date; done by itself on the first use.

        Raises:
            StoreUnavailable: the database does not answer, lacks pgvector, or its schema is newer than this program.
        """
        self._locate()
        with self._translated(), self._direct(_LONG_SECONDS) as connection:
            migrate(connection)
            _find_vector(connection)
            self._create_table(connection)

    def connections(self) -> Mapping[str, int]:
        """How many connections the pool has (``open``) and how many are ``idle``; how many calls are ``waiting``."""
        figures = self._pool.get_stats()
        names = {"open": "pool_size", "idle": "pool_available", "waiting": "requests_waiting"}
        return {name: figures.get(figure, 0) for name, figure in names.items()}

    def ping(self) -> None:
        """Return if the database answers."""
        with self._connection() as connection:
            connection.execute("SELECT 1")

    def versions(self) -> dict[str, str]:
        """Versions of ``postgresql`` and ``pgvector`` that answer."""
        query = (
            "SELECT current_setting('server_version'), (SELECT extversion FROM pg_extension WHERE extname = 'vector')"
        )
        with self._connection() as connection:
            row = connection.execute(query).fetchone()
        return dict(zip(("postgresql", "pgvector"), map(str, row or ()), strict=False))

    def domains(self) -> list[str]:
        """Names of the domains held, sorted."""
        query = 'SELECT domain FROM face_service.domains WHERE table_name = %s ORDER BY domain COLLATE "C"'
        with self._connection() as connection:
            return [row[0] for row in connection.execute(query, (self._table,))]

    def inventory(self, domain: str) -> Mapping[str, str]:
        """``{source: digest}`` of every picture enrolled; empty when there is no such domain."""
        return dict(self._read(domain, "SELECT source, max(digest) FROM {} GROUP BY source"))

    def count(self, domain: str) -> int:
        """How many faces are enrolled; 0 when there is no such domain."""
        return sum(row[0] for row in self._read(domain, "SELECT count(*) FROM {}"))

    def entries(self, domain: str) -> list[Entry]:
        """Every enrolled face without its embedding, sorted by source."""
        query = 'SELECT person, source, digest, x, y, w, h FROM {} ORDER BY source COLLATE "C", x, y, w, h'
        return [
            Entry(person, source, digest, (x, y, w, h))
            for person, source, digest, x, y, w, h in self._read(domain, query)
        ]

    def faces(self, domain: str, person: str | None = None) -> list[GalleryFace]:
        """Every enrolled face, or those of one person, sorted by source."""
        query = (
            "SELECT person, source, digest, x, y, w, h, embedding FROM {} "
            'WHERE %s::text IS NULL OR person = %s ORDER BY source COLLATE "C", x, y, w, h'
        )
        return [
            GalleryFace(person, source, digest, embedding.to_numpy(), (x, y, w, h))
            for person, source, digest, x, y, w, h, embedding in self._read(domain, query, (person, person))
        ]

    def search(self, embeddings: FloatArray, domain: str, threshold: float | None, top_k: int) -> list[list[Match]]:
        """The nearest ``top_k`` faces for each row of ``embeddings`` ((n, d) float32, unit rows), nearest first.

        Equal distances are ordered by source. ``threshold`` drops matches farther than this cosine distance; None
        keeps all.

        Raises:
            UnknownDomain: there is no such domain.
            GalleryError: the embeddings have another dimension or are not finite.
        """
        self._check_query(embeddings)
        with self._connection() as connection:
            try:
                rows = self._nearest(connection, embeddings, domain, top_k)
            except errors.UndefinedTable:
                self._indexed.pop(domain, None)
                rows = self._nearest(connection, embeddings, domain, top_k)
        matches: list[list[Match]] = [[] for _ in range(len(embeddings))]
        for index, person, distance, source in rows:
            if threshold is None or distance <= threshold:
                matches[index - 1].append(Match(person, distance, source))
        return matches

    def apply(self, domain: str, upsert: Sequence[GalleryFace], remove: Iterable[str]) -> None:
        """In one transaction: drop every face of the sources in ``remove`` and ``upsert``, then add ``upsert``.

        Creates the domain when it is new. Writers of one domain wait for each other.

        Raises:
            GalleryError: a face does not fit this store. Then, and on :class:`StoreUnavailable`, nothing was changed.
        """
        faces = list(upsert)
        sources = sorted({*remove, *(face.source for face in faces)})
        self._check_faces(domain, faces, sources)
        partition = self._partition(domain)
        with self._connection(_LONG_SECONDS) as connection, connection.transaction():
            self._begin_write(connection, domain)
            known = self._register(connection, domain)
            if not known:
                self._create_partition(connection, partition)
            connection.execute(sql.SQL("DELETE FROM {} WHERE source = ANY(%s)").format(partition), (sources,))
            _copy(connection, partition, domain, faces)
            grown = self._has_outgrown(connection, partition, domain)
            if not known:
                self._attach(connection, partition, domain)
        if grown:
            self._build_index(domain)

    def drop(self, domain: str) -> None:
        """Delete a domain with all its faces; nothing happens when there is none."""
        query = "DELETE FROM face_service.domains WHERE table_name = %s AND domain = %s"
        with self._connection(_LONG_SECONDS) as connection, connection.transaction():
            self._begin_write(connection, domain)
            if connection.execute(query, (self._table, domain)).rowcount:
                connection.execute(sql.SQL("DROP TABLE {}").format(self._partition(domain)))
        self._indexed.pop(domain, None)

    def purge(self, domain: str, *, indexed: bool = False) -> None:
        """Take what was deleted out of the database's files; see :func:`matchers.erasure.erase`.

        Args:
            indexed: also for a domain that is searched through an index. Its searches wait while the table is written
                anew, and are slow until the index is made again.
        """
        self._prepare(time.monotonic() + self._timeout)
        with self._translated(), self._direct(_LONG_SECONDS) as connection:
            known = self._is_known(connection, domain)
            searched_by_index = known and self._is_indexed(connection, domain)
            if searched_by_index and indexed:
                self._forget_index(connection, domain)
            partition = self._partition(domain) if known and (indexed or not searched_by_index) else None
            erase(connection, partition)
        if searched_by_index and indexed:
            self._build_index(domain)

    def _is_known(self, connection: Connection, domain: str) -> bool:
        query = "SELECT 1 FROM face_service.domains WHERE table_name = %s AND domain = %s"
        return connection.execute(query, (self._table, domain)).fetchone() is not None

    def _forget_index(self, connection: Connection, domain: str) -> None:
        with connection.transaction():
            connection.execute(
                "UPDATE face_service.domains SET indexed = false WHERE table_name = %s AND domain = %s",
                (self._table, domain),
            )
            name = sql.Identifier("face_service", self._index_name(domain))
            connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(name))
        self._indexed.pop(domain, None)

    def indexed(self, domain: str) -> bool:
        """Whether searches of ``domain`` go through an approximate index.

        Raises:
            UnknownDomain: there is no such domain.
        """
        with self._connection() as connection:
            return self._is_indexed(connection, domain)

    def beside(self, name: str) -> PgvectorStore:
        """Another store in the same database, with a table of its own, for embeddings of the same kind.

        Args:
            name: what this store's embedder is called; nobody else may use it.
        """
        return PgvectorStore(self._conninfo, replace(self._embedder, name=name, space=name), self._timeout)

    def erase(self) -> None:
        """Drop the store's table with all its domains, as if it had never been."""
        with self._connection(_LONG_SECONDS) as connection, connection.transaction():
            _set_timeouts(connection, _LONG_SECONDS, self._timeout, local=True)
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_lock_key(self._table, ""),))
            connection.execute("DELETE FROM face_service.domains WHERE table_name = %s", (self._table,))
            connection.execute("DELETE FROM face_service.models WHERE table_name = %s", (self._table,))
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier("face_service", self._table)))
            self._ready = False

    def _nearest(
        self, connection: Connection, embeddings: FloatArray, domain: str, top_k: int
    ) -> list[tuple[int, str, float, str]]:
        """Rows of face number (from 1), person, distance, source.

        The limits stand in the text of the query: with a parameter the planner would not know that they are small.
        """
        faces: sql.Composable = self._partition(domain)
        if self._is_indexed(connection, domain):
            faces = sql.SQL(
                "(SELECT * FROM {faces} ORDER BY embedding::halfvec({d}) <#> q.v::halfvec({d}) LIMIT {candidates})"
            ).format(
                faces=faces,
                d=sql.Literal(self._embedder.dimension),
                candidates=sql.Literal(max(_CANDIDATES_MIN, _CANDIDATES_FACTOR * top_k)),
            )
        query = sql.SQL(
            "SELECT q.i, m.person, m.distance, m.source FROM unnest(%s::vector[]) WITH ORDINALITY AS q(v, i) "
            "CROSS JOIN LATERAL (SELECT f.person, f.source, f.x, f.y, 1 + (f.embedding <#> q.v) AS distance "
            'FROM {faces} AS f ORDER BY distance, f.source COLLATE "C", f.x, f.y LIMIT {top_k}) AS m '
            'ORDER BY q.i, m.distance, m.source COLLATE "C", m.x, m.y'
        ).format(faces=faces, top_k=sql.Literal(top_k))
        vectors = [Vector(row) for row in embeddings]
        if not vectors:
            return []
        return connection.execute(query, (vectors,), prepare=True, binary=True).fetchall()

    def _is_indexed(self, connection: Connection, domain: str) -> bool:
        known = self._indexed.get(domain)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        row = connection.execute(
            "SELECT indexed FROM face_service.domains WHERE table_name = %s AND domain = %s", (self._table, domain)
        ).fetchone()
        if row is None:
            raise UnknownDomain(f"pgvector holds no domain {domain!r} for the embedder {self._embedder.name}")
        self._indexed[domain] = (row[0], time.monotonic() + _INDEXED_SECONDS)
        return bool(row[0])

    def _read(self, domain: str, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of ``query`` on the partition of ``domain``, none when there is no such domain."""
        with self._connection(_LONG_SECONDS) as connection:
            try:
                with connection.transaction():
                    _set_timeouts(connection, _LONG_SECONDS, self._timeout, local=True)
                    statement = sql.SQL(query).format(self._partition(domain))
                    return connection.execute(statement, parameters, binary=True).fetchall()
            except errors.UndefinedTable:
                return []

    def _begin_write(self, connection: Connection, domain: str) -> None:
        _set_timeouts(connection, _LONG_SECONDS, self._timeout, local=True)
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_lock_key(self._table, domain),))

    def _register(self, connection: Connection, domain: str) -> bool:
        """Whether the domain was known before."""
        return not connection.execute(
            "INSERT INTO face_service.domains (table_name, domain, partition_name) VALUES (%s, %s, %s) "
            "ON CONFLICT (table_name, domain) DO NOTHING",
            (self._table, domain, self._partition_name(domain)),
        ).rowcount

    def _create_partition(self, connection: Connection, partition: sql.Composable) -> None:
        parent = sql.Identifier("face_service", self._table)
        connection.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(partition, parent))
        # Statistics would copy names into the system's own tables, where deleting a person does not reach.
        for column in ("person", "source", "digest", "embedding"):
            connection.execute(
                sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET STATISTICS 0").format(partition, sql.Identifier(column))
            )

    def _attach(self, connection: Connection, partition: sql.Composable, domain: str) -> None:
        """Last step of a new domain: it locks the parent table, on which writers of other new domains wait."""
        connection.execute(
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES IN ({})").format(
                sql.Identifier("face_service", self._table), partition, sql.Literal(domain)
            )
        )

    def _has_outgrown(self, connection: Connection, partition: sql.Composable, domain: str) -> bool:
        if self._embedder.dimension > _INDEX_DIMENSIONS or self._is_indexed(connection, domain):
            return False
        query = sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {} LIMIT {}) AS first_faces")
        row = connection.execute(query.format(partition, sql.Literal(self._exact_limit + 1))).fetchone()
        return row is not None and row[0] > self._exact_limit

    def _build_index(self, domain: str) -> None:
        """Faces are stored already and searched exactly until the index is there, so a failure is only reported."""
        name = self._index_name(domain)
        try:
            with self._translated(), self._direct(_INDEX_SECONDS) as connection:
                key = _lock_key(name, "index")
                row = connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
                if row is None or not row[0]:
                    return
                _find_vector(connection)
                _logger.info("domain %r has outgrown exact search, building its index", domain)
                connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier("face_service", name)))
                connection.execute(
                    sql.SQL(
                        "CREATE INDEX CONCURRENTLY {} ON {} USING hnsw ((embedding::halfvec({})) halfvec_ip_ops)"
                    ).format(sql.Identifier(name), self._partition(domain), sql.Literal(self._embedder.dimension))
                )
                connection.execute(
                    "UPDATE face_service.domains SET indexed = true WHERE table_name = %s AND domain = %s",
                    (self._table, domain),
                )
        except StoreUnavailable as error:
            _logger.warning("the index of domain %r was not built, its search stays exact: %s", domain, error)
        self._indexed.pop(domain, None)

    def _create_table(self, connection: Connection) -> None:
        card = self._embedder
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_lock_key(self._table, ""),))
            fresh = connection.execute(
                "INSERT INTO face_service.models (table_name, model, space, dimension) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (table_name) DO NOTHING",
                (self._table, card.name, card.gallery_space, card.dimension),
            ).rowcount
            row = connection.execute(
                "SELECT model, space, dimension FROM face_service.models WHERE table_name = %s", (self._table,)
            ).fetchone()
            expected = (card.name, card.gallery_space, card.dimension)
            if row != expected:
                raise GalleryError(
                    f"table {self._table} holds embeddings of another model (name, space, dimension {row}) than "
                    f"the embedder {expected}: adopt the model under another name"
                )
            if fresh:
                self._define_table(connection)

    def _define_table(self, connection: Connection) -> None:
        table = sql.Identifier("face_service", self._table)
        dimension = self._embedder.dimension
        connection.execute(
            sql.SQL(
                "CREATE TABLE {} (domain text NOT NULL, person text NOT NULL, source text NOT NULL, "
                "digest text NOT NULL, x integer NOT NULL, y integer NOT NULL, w integer NOT NULL, "
                "h integer NOT NULL, embedding vector({}) NOT NULL, "
                "created_at timestamptz NOT NULL DEFAULT now()) PARTITION BY LIST (domain)"
            ).format(table, sql.Literal(dimension))
        )
        storage = "PLAIN" if 4 * dimension <= _PLAIN_BYTES else "EXTERNAL"
        connection.execute(
            sql.SQL("ALTER TABLE {} ALTER COLUMN embedding SET STORAGE {}").format(table, sql.SQL(storage))
        )
        # A hash index takes sources of any length; a B-tree refuses those over 2.7 kB.
        connection.execute(sql.SQL("CREATE INDEX ON {} USING hash (source)").format(table))

    def _partition_name(self, domain: str) -> str:
        return f"{self._table}_{hashlib.sha256(domain.encode()).hexdigest()[:16]}"

    def _index_name(self, domain: str) -> str:
        return self._partition_name(domain) + "_hnsw"

    def _partition(self, domain: str) -> sql.Identifier:
        return sql.Identifier("face_service", self._partition_name(domain))

    def _check_query(self, embeddings: FloatArray) -> None:
        if embeddings.ndim != 2 or embeddings.shape[1] != self._embedder.dimension:
            raise GalleryError(
                f"embeddings of shape {embeddings.shape} do not fit {self._embedder.name}, "
                f"which gives (n, {self._embedder.dimension})"
            )
        if not np.isfinite(embeddings).all():
            raise GalleryError("an embedding holds a number that is not finite")

    def _check_faces(self, domain: str, faces: Sequence[GalleryFace], sources: Sequence[str]) -> None:
        for text in (domain, *sources, *(face.person for face in faces), *(face.digest for face in faces)):
            if "\0" in text or not _is_unicode(text):
                raise GalleryError(f"PostgreSQL cannot hold the name {text!r}: rename the file or folder")
        for face in faces:
            if face.embedding.shape != (self._embedder.dimension,) or not np.isfinite(face.embedding).all():
                raise GalleryError(
                    f"the embedding of {face.source!r} is not {self._embedder.dimension} finite numbers, "
                    f"as {self._embedder.name} gives"
                )

    def _new_pool(self) -> ConnectionPool[Connection]:
        return ConnectionPool(
            kwargs={**self._parameters, "autocommit": True},
            min_size=1,
            max_size=_POOL_SIZE,
            open=False,
            configure=self._configure,
            reconnect_timeout=1.0,
            name="pgvector",
        )

    def _configure(self, connection: Connection) -> None:
        _set_timeouts(connection, self._timeout, self._timeout)
        _find_vector(connection)
        connection.execute(
            "SELECT set_config('hnsw.iterative_scan', 'relaxed_order', false), set_config('hnsw.ef_search', %s, false)",
            (str(_CANDIDATES_MIN),),
        )
        register_vector(connection)

    @contextmanager
    def _connection(self, seconds: float | None = None) -> Iterator[Connection]:
        """A working connection that is cut off after ``seconds``, by default after the timeout with all waiting."""
        deadline = time.monotonic() + self._timeout
        self._prepare(deadline)
        with self._translated():
            connection = self._checkout(deadline)
            try:
                with _cut_off(connection, deadline if seconds is None else time.monotonic() + seconds):
                    yield connection
            finally:
                self._pool.putconn(connection)

    def _prepare(self, deadline: float) -> None:
        if self._ready:
            return
        if not self._preparing.acquire(timeout=_left(deadline)):
            raise StoreUnavailable(f"{self._where()} was not ready within {self._timeout:g} s")
        try:
            if not self._ready:
                self.migrate()
                if self._pool.closed:
                    self._pool.open(wait=False)
                self._ready = True
        finally:
            self._preparing.release()

    def _locate(self) -> None:
        """Ask where the server is, if that was not known from the beginning."""
        if not isinstance(self._conninfo, str):
            parameters = _parameters(self._conninfo(), self._timeout)
            if parameters != self._parameters:
                self._pool.close()
                self._parameters = parameters
                self._pool = self._new_pool()

    def _checkout(self, deadline: float) -> Connection:
        try:
            connection = self._pool.getconn(_left(deadline, _PATIENCE))
        except PoolTimeout:
            _logger.debug("no pooled connection within %g s, asking the server directly", _PATIENCE)
        else:
            if _is_alive(connection, deadline):
                return connection
            self._pool.putconn(connection)
            if time.monotonic() >= deadline:
                raise StoreUnavailable(f"{self._where()} did not answer within {self._timeout:g} s")
        with self._direct(_left(deadline)):
            self._pool.check()
        return self._pool.getconn(_left(deadline))

    @contextmanager
    def _direct(self, seconds: float) -> Iterator[Connection]:
        """A connection beside the pool: when the server is down it fails at once and tells the reason."""
        deadline = time.monotonic() + seconds
        patience = max(2, math.ceil(min(seconds, self._timeout)))
        parameters = {**self._parameters, "connect_timeout": patience}
        with psycopg.connect(**parameters, autocommit=True) as connection, _cut_off(connection, deadline):
            _set_timeouts(connection, seconds, self._timeout)
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeout as error:
            raise StoreUnavailable(f"no connection to {self._where()} got free within {self._timeout:g} s") from error
        except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
            self._ready = False
            raise StoreUnavailable(f"the tables in {self._where()} are gone; the next use makes them anew") from error
        except errors.QueryCanceled as error:
            raise StoreUnavailable(f"{self._where()} did not answer in time") from error
        except psycopg.Error as error:
            reason = str(error).strip().partition("\n")[0]
            raise StoreUnavailable(f"{self._where()} cannot answer: {reason}") from error

    def _where(self) -> str:
        host = self._parameters.get("host") or "the default host"
        return f"PostgreSQL at {host}, database {self._parameters.get('dbname') or 'default'}"


def _parameters(conninfo: str, timeout: float) -> dict[str, Any]:
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.Error:
        # The cause would quote the string, with the password in it.
        raise StoreUnavailable(
            "the database connection string cannot be read: DATABASE_URL must look like "
            "postgresql://user:password@host:5432/database"
        ) from None
    return {
        "application_name": "face-service",
        "connect_timeout": max(2, math.ceil(timeout)),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": math.ceil(timeout * 1000),
        **given,
    }


def _table_name(model: str) -> str:
    name = "faces_" + re.sub(r"[^a-z0-9]+", "_", model.lower())
    if name == f"faces_{model}" and _TABLE_NAME.fullmatch(name):
        return name
    return f"{name[:23]}_{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def _lock_key(*parts: str) -> int:
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _left(deadline: float, most: float = math.inf) -> float:
    return max(0.001, min(most, deadline - time.monotonic()))


def _set_timeouts(connection: Connection, statement: float, lock: float, *, local: bool = False) -> None:
    connection.execute(
        "SELECT set_config('statement_timeout', %s, %s), set_config('lock_timeout', %s, %s)",
        (str(math.ceil(statement * 1000)), local, str(math.ceil(lock * 1000)), local),
    )


def _find_vector(connection: Connection) -> None:
    """Look for types and operators in the schema of pgvector and in no other."""
    connection.execute(
        "SELECT set_config('search_path', quote_ident(nspname), false) "
        "FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'vector'"
    )


def _copy(connection: Connection, partition: sql.Composable, domain: str, faces: Sequence[GalleryFace]) -> None:
    query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(partition, sql.SQL(_COLUMNS))
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        copy.set_types(_COLUMN_TYPES)
        for face in faces:
            box = (int(value) for value in face.box)
            copy.write_row((domain, face.person, face.source, face.digest, *box, Vector(face.embedding)))


def _is_alive(connection: Connection, deadline: float) -> bool:
    try:
        with _cut_off(connection, deadline):
            connection.execute("")
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def _cut_off(connection: Connection, deadline: float) -> Iterator[None]:
    """Shut the connection's socket down at ``deadline``: a server that hangs ends in an OperationalError.

    ``statement_timeout`` is kept by the server itself, so it does not help when that is what hangs.
    """
    lock = threading.Lock()
    done = False

    def shut_down() -> None:
        with lock:
            if not done and not connection.closed:
                with socket.socket(fileno=os.dup(connection.fileno())) as handle:
                    handle.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(_left(deadline), shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            done = True
