"""Galleries in PostgreSQL with pgvector: one table per embedding model, one partition per domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from psycopg import errors, sql

from matchers.base import Entry, FloatArray, GalleryFace, Match, Query, Results
from matchers.copying import check_faces, check_texts, copy_faces
from matchers.database import LONG_SECONDS, Connection, Database, find_vector, lock_key, set_timeouts
from matchers.erasure import erase
from matchers.errors import GalleryError
from matchers.indexes import BREADTH_MOST, FaceIndexes, Probe
from matchers.migrations import migrate
from matchers.question import Questions, Row
from matchers.tables import FaceTables
from models.card import ModelCard

# With so many faces an exact scan still takes milliseconds; a larger domain is searched through an index.
_EXACT_LIMIT = 20_000
# Whom a search has found at such a share of the threshold it was made for; otherwise it goes on through more cells.
_NEAR = 0.8
# Candidates of an index per match asked for, at least.
_CANDIDATES = 4
# Faces of one person that are compared beside the candidates.
_OF_ONE_PERSON = 100

_STATEMENTS = 256

# For each face asked for, {nearest} gives person, source, x, y and distance.
_EACH = sql.SQL(
    "SELECT q.i, m.person, m.distance, m.source FROM unnest($1::vector[]) WITH ORDINALITY AS q(v, i) "
    "CROSS JOIN LATERAL ({nearest}) AS m "
    'ORDER BY q.i, m.distance, m.source COLLATE "C", m.x, m.y'
)
_FIRST = sql.SQL('ORDER BY distance, source COLLATE "C", x, y LIMIT {top_k}')
_EXACT = sql.SQL("SELECT person, source, x, y, 1 + (embedding <#> q.v) AS distance FROM {faces} {first}")
# The candidates of the index in their true order; then the people among them with all their faces.
_INDEXED = sql.SQL(
    "WITH near AS MATERIALIZED (SELECT person, source, x, y, 1 + (embedding <#> q.v) AS distance FROM "
    "(SELECT * FROM {faces} ORDER BY embedding::halfvec({d}) <#> q.v::halfvec({d}) LIMIT {candidates}) "
    "AS found {first}) "
    "SELECT person, source, x, y, distance FROM (SELECT * FROM near UNION "
    "SELECT f.person, f.source, f.x, f.y, 1 + (f.embedding <#> q.v) "
    "FROM (SELECT DISTINCT person FROM near) AS who CROSS JOIN LATERAL "
    "(SELECT * FROM {faces} AS one WHERE one.person = who.person LIMIT {of_one}) AS f) AS every {first}"
)


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
        exact_limit: domains of more faces than this are searched through an index, once :meth:`build_indexes` has
            made it.

    Raises:
        StoreUnavailable: the connection string cannot be read.
    """

    def __init__(
        self,
        conninfo: str | Callable[[], str],
        embedder: ModelCard,
        timeout: float,
        exact_limit: int = _EXACT_LIMIT,
    ) -> None:
        self._embedder = embedder
        self._tables = FaceTables(embedder)
        self._database = Database(
            conninfo, timeout, self._define, {"hnsw.iterative_scan": "relaxed_order", "jit": "off"}
        )
        self._indexes = FaceIndexes(self._database, self._tables, embedder.dimension, exact_limit)
        self._extents: WeakKeyDictionary[Connection, tuple[int, int]] = WeakKeyDictionary()
        self._questions = Questions()
        # To put one together takes a tenth of the time of a search.
        self._statement = lru_cache(_STATEMENTS)(self._compose)

    def __enter__(self) -> PgvectorStore:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Allow use, also after :meth:`close`. Returns at once, whether the database is up or not."""
        self._indexes.allow()
        self._database.open()

    def close(self) -> None:
        """Close all connections and give up what is being built; may be called twice."""
        self._indexes.interrupt()
        self._database.close()

    def migrate(self) -> None:
        """Bring the schema up to date; done by itself on the first use.

        Raises:
            StoreUnavailable: the database does not answer, lacks pgvector, or its schema is newer than this program.
        """
        self._database.define()

    def connections(self) -> Mapping[str, int]:
        """How many connections the pool has (``open``) and how many are ``idle``; how many calls are ``waiting``."""
        return self._database.connections()

    def ping(self) -> None:
        """Return if the database answers."""
        with self._database.connection() as connection:
            connection.execute("SELECT 1")

    def versions(self) -> dict[str, str]:
        """Versions of ``postgresql`` and ``pgvector`` that answer."""
        query = (
            "SELECT current_setting('server_version'), (SELECT extversion FROM pg_extension WHERE extname = 'vector')"
        )
        with self._database.connection() as connection:
            row = connection.execute(query).fetchone()
        return dict(zip(("postgresql", "pgvector"), map(str, row or ()), strict=False))

    def domains(self) -> list[str]:
        """Names of the domains held, sorted."""
        query = 'SELECT domain FROM face_service.domains WHERE table_name = %s ORDER BY domain COLLATE "C"'
        with self._database.connection() as connection:
            return [row[0] for row in connection.execute(query, (self._tables.name,))]

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
        with self._database.connection() as connection:
            found = self._search(connection, Query(embeddings, domain, top_k))
        if threshold is None:
            return found
        return [[match for match in matches if match.distance <= threshold] for matches in found]

    def search_at_once(
        self, query: Query, seconds: float, meanwhile: Callable[[], None] | None = None
    ) -> Results | None:
        """As :meth:`search`, cut off after ``seconds``; None, at once, when no connection is idle.

        So it may be called from a thread that must not wait for a server which does not answer.

        Args:
            meanwhile: called, at most once, when the server has been asked and before its answer is waited for.
        """
        self._check_query(query.embeddings)
        with self._database.connection_at_hand(seconds) as connection:
            return None if connection is None else self._search(connection, query, meanwhile)

    def apply(self, domain: str, upsert: Sequence[GalleryFace], remove: Iterable[str]) -> None:
        """In one transaction: drop every face of the sources in ``remove`` and ``upsert``, then add ``upsert``.

        Creates the domain when it is new. Writers of one domain wait for each other.

        Raises:
            GalleryError: a face does not fit this store. Then, and on :class:`StoreUnavailable`, nothing was changed.
        """
        faces = list(upsert)
        sources = sorted({*remove, *(face.source for face in faces)})
        check_texts((domain, *sources))
        check_faces(faces, self._embedder.dimension, self._embedder.name)
        partition = self._tables.partition(domain)
        with self._database.connection(LONG_SECONDS) as connection, connection.transaction():
            self._begin_write(connection, domain)
            known = self._tables.register(connection, domain)
            if known:
                connection.execute(sql.SQL("DELETE FROM {} WHERE source = ANY(%s)").format(partition), (sources,))
            else:
                self._tables.create_partition(connection, partition)
            copy_faces(connection, partition, domain, faces, fresh=not known)
            if not known:
                self._tables.attach(connection, partition, domain)

    def drop(self, domain: str) -> None:
        """Delete a domain with all its faces; nothing happens when there is none."""
        query = "DELETE FROM face_service.domains WHERE table_name = %s AND domain = %s"
        with self._database.connection(LONG_SECONDS) as connection, connection.transaction():
            self._begin_write(connection, domain)
            if connection.execute(query, (self._tables.name, domain)).rowcount:
                connection.execute(sql.SQL("DROP TABLE {}").format(self._tables.partition(domain)))
        self._indexes.changed(domain)

    def purge(self, domain: str, *, indexed: bool = False) -> None:
        """Take what was deleted out of the database's files; see :func:`matchers.erasure.erase`.

        Args:
            indexed: also for a domain that is searched through an index. Its searches wait while the table is written
                anew, and are slow until the index is made again.
        """
        with self._database.own_connection(LONG_SECONDS) as connection:
            known = self._is_known(connection, domain)
            has_index = known and self._indexes.probe(connection, domain) is not None
            if has_index and indexed:
                self._indexes.forget(connection, domain)
            partition = self._tables.partition(domain) if known and (indexed or not has_index) else None
            erase(connection, partition)
        if has_index and indexed:
            self._indexes.build(domain)

    def build_indexes(self) -> list[str]:
        """Make the indexes of all domains that outgrew an exact scan and have none, or an older kind; their names.

        That takes seconds for 100,000 faces, and minutes for a million. Searches, exact or through the old one until
        then, and writers go on meanwhile; of several processes at once, one works on a domain and the others pass it
        over.
        """
        with self._database.connection() as connection:
            missing = self._indexes.missing(connection)
        return [domain for domain in missing if self._indexes.build(domain)]

    def _define(self, connection: Connection) -> None:
        migrate(connection)
        find_vector(connection)
        self._tables.create(connection)

    def _is_known(self, connection: Connection, domain: str) -> bool:
        query = "SELECT 1 FROM face_service.domains WHERE table_name = %s AND domain = %s"
        return connection.execute(query, (self._tables.name, domain)).fetchone() is not None

    def indexed(self, domain: str) -> bool:
        """Whether searches of ``domain`` go through an approximate index.

        Raises:
            UnknownDomain: there is no such domain.
        """
        with self._database.connection() as connection:
            return self._indexes.probe(connection, domain) is not None

    def approximates(self, domain: str) -> bool:
        """Whether the last search of ``domain`` went through an approximate index; the database is not asked."""
        return self._indexes.used(domain)

    def holding(self, domain: str, sources: Iterable[str]) -> frozenset[str]:
        """Those of ``sources`` of which faces are enrolled."""
        return frozenset(
            row[0] for row in self._read(domain, "SELECT source FROM {} WHERE source = ANY(%s)", (list(sources),))
        )

    @property
    def database(self) -> Database:
        """Where the galleries lie, for tables beside them."""
        return self._database

    def beside(self, name: str) -> PgvectorStore:
        """Another store in the same database, with a table of its own, for embeddings of the same kind.

        Args:
            name: what this store's embedder is called; nobody else may use it.
        """
        return PgvectorStore(
            self._database.conninfo, replace(self._embedder, name=name, space=name), self._database.timeout
        )

    def erase(self) -> None:
        """Drop the store's table with all its domains, as if it had never been."""
        with self._database.connection(LONG_SECONDS) as connection, connection.transaction():
            set_timeouts(connection, LONG_SECONDS, self._database.timeout, local=True)
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key(self._tables.name, ""),))
            connection.execute("DELETE FROM face_service.domains WHERE table_name = %s", (self._tables.name,))
            connection.execute("DELETE FROM face_service.models WHERE table_name = %s", (self._tables.name,))
            connection.execute(sql.SQL("DROP TABLE {}").format(self._tables.identifier))
            self._database.forget()

    def _search(self, connection: Connection, query: Query, meanwhile: Callable[[], None] | None = None) -> Results:
        try:
            rows = self._nearest(connection, query, meanwhile)
        except errors.UndefinedTable:
            self._indexes.changed(query.domain)
            rows = self._nearest(connection, query)
        matches: Results = [[] for _ in range(len(query.embeddings))]
        for index, person, distance, source in rows:
            matches[index - 1].append(Match(person, distance, source))
        return matches

    def _nearest(self, connection: Connection, query: Query, meanwhile: Callable[[], None] | None = None) -> list[Row]:
        """Rows of face number (from 1), person, distance, source.

        The limits stand in the text of the query: with a parameter the planner would not know that they are small.
        """
        probe = self._indexes.probe(connection, query.domain)
        if not len(query.embeddings) or query.top_k < 1:
            return []
        if probe is not None:
            probe = replace(probe, breadth=max(probe.breadth, _CANDIDATES * query.top_k))
            self._set_extent(connection, probe.breadth, probe.cells[0] if probe.cells else 1)
        statement = self._statement(query.domain, query.top_k, probe)
        rows = self._questions.ask(connection, statement, query.embeddings, meanwhile)
        if probe is None or not probe.cells:
            return rows
        enough = _NEAR * (self._embedder.threshold or 0)
        near = {index for index, _, distance, _ in rows if distance <= enough}
        rest = [index for index in range(1, len(query.embeddings) + 1) if index not in near]
        if rest:
            self._set_extent(connection, probe.breadth, probe.cells[1])
            more = self._questions.ask(connection, statement, query.embeddings[[index - 1 for index in rest]])
            rows = [row for row in rows if row[0] in near]
            rows += [(rest[index - 1], person, distance, source) for index, person, distance, source in more]
        return rows

    def _compose(self, domain: str, top_k: int, probe: Probe | None) -> bytes:
        faces, first = self._tables.partition(domain), _FIRST.format(top_k=sql.Literal(top_k))
        if probe is None:
            nearest = _EXACT.format(faces=faces, first=first)
        else:
            nearest = _INDEXED.format(
                faces=faces,
                first=first,
                d=sql.Literal(self._embedder.dimension),
                candidates=sql.Literal(probe.breadth),
                of_one=sql.Literal(_OF_ONE_PERSON),
            )
        return _EACH.format(nearest=nearest).as_bytes(None)

    def _set_extent(self, connection: Connection, breadth: int, cells: int) -> None:
        """How far the searches of a connection go from now on: candidates of a graph, and cells."""
        if self._extents.get(connection) != (breadth, cells):
            connection.execute(
                "SELECT set_config('hnsw.ef_search', %s, false), set_config('ivfflat.probes', %s, false)",
                (str(min(breadth, BREADTH_MOST)), str(cells)),
            )
            self._extents[connection] = breadth, cells

    def _read(self, domain: str, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of ``query`` on the partition of ``domain``, none when there is no such domain."""
        with self._database.connection(LONG_SECONDS) as connection:
            try:
                with connection.transaction():
                    set_timeouts(connection, LONG_SECONDS, self._database.timeout, local=True)
                    statement = sql.SQL(query).format(self._tables.partition(domain))
                    return connection.execute(statement, parameters, binary=True).fetchall()
            except errors.UndefinedTable:
                return []

    def _begin_write(self, connection: Connection, domain: str) -> None:
        set_timeouts(connection, LONG_SECONDS, self._database.timeout, local=True)
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (self._tables.writing_key(domain),))

    def _check_query(self, embeddings: FloatArray) -> None:
        if embeddings.ndim != 2 or embeddings.shape[1] != self._embedder.dimension:
            raise GalleryError(
                f"embeddings of shape {embeddings.shape} do not fit {self._embedder.name}, "
                f"which gives (n, {self._embedder.dimension})"
            )
        if not np.isfinite(embeddings).all():
            raise GalleryError("an embedding holds a number that is not finite")
