"""Indexes of domains that have outgrown an exact scan: one on embeddings in half precision, and one on people.

The first gives candidates, which are compared exactly. Pictures of one person lie close together, and of those an index
may reach some and miss others; the second one brings all faces of the people who are near, so that who was found at all
is compared with every picture.

Embeddings of 512 numbers and more are put into cells around centres (IVFFlat), shorter ones into a graph (HNSW). Of a
million faces a search must look at two or three in a hundred either way: in the graph each of them lies on another
page, in a cell they follow each other, and cells are made many times faster.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass

import psycopg
from psycopg import errors, sql

from matchers.database import Connection, Database, find_vector, lock_key, set_timeouts
from matchers.errors import StoreUnavailable, UnknownDomain
from matchers.tables import FaceTables

BREADTH_MOST = 1000
"""pgvector's limit for ``hnsw.ef_search``."""

# How the names of the indexes end.
_GRAPH, _CELLS, _FRESH, _PEOPLE = "hnsw", "cells", "fresh", "people"
_BUILD_SECONDS = 6 * 3600.0

# Faces in a cell: of 100,000 faces a search looks at half as many in cells of 250 as in cells of 500 to find as many
# people. The time to make cells, and the memory, grow with the square of their number.
_CELL_FACES, _CELLS_MOST = 250, 2000
# Of fewer numbers some strangers lie under the threshold, in any cell; a graph finds more of them.
_CELLS_DIMENSIONS = 512
# A domain that has grown so many times gets more cells.
_GROWTH = 4
# Cells that a search looks through first, of 2000, and how many of fewer: of a million faces in 200,000 groups with
# nothing in common, 40 hold somebody of the right group for 95 % of queries, and so do 12 of 400 for 100,000 faces.
# When nobody is near there, eight times as many are looked through (python -m benchmarks.pgvector_search).
_FIRST, _FIRST_POWER, _FIRST_LEAST, _MORE = 40, 0.8, 8, 8

# Links of a node and candidates while it is put in: the graph of 100,000 faces with five pictures of each person finds
# who is nearest for all of 500 queries, pgvector's own 16 and 64 for 99 % (python -m benchmarks.pgvector_search).
_LINKS, _CONSTRUCTION = 24, 100
# Candidates of a search in a graph of 100,000 faces, and how they grow with a domain: of a million faces in 200,000
# groups that have nothing in common, 600 candidates find 99.7 % of what an exact search finds, 300 find 96 %.
_BREADTH, _BREADTH_FACES, _BREADTH_POWER = 150, 100_000, 0.6
_BREADTH_LEAST = 100
# pgvector's limit for an HNSW index on halfvec (its README, "HNSW").
_DIMENSIONS = 4000
_KNOWN_SECONDS = 5.0
_INTERRUPT_SECONDS, _INTERRUPT_PAUSE = 5.0, 0.05
# What pgvector keeps of a node while it builds, beside its numbers: links with their distances, and a header.
_NODE_BYTES = 1700
_MEMORY_MOST = 4 * 2**30

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probe:
    """How a search goes through the index of a domain.

    Attributes:
        breadth: how many candidates it takes.
        cells: through how many cells it looks first, and through how many when nobody is near there; None for a graph.
    """

    breadth: int
    cells: tuple[int, int] | None


class FaceIndexes:
    """The indexes of one embedder's domains; safe to share between threads.

    Args:
        dimension: numbers of an embedding.
        exact_limit: domains of more faces than this get indexes.
    """

    def __init__(self, database: Database, tables: FaceTables, dimension: int, exact_limit: int) -> None:
        self._database = database
        self._tables = tables
        self._dimension = dimension
        self._exact_limit = exact_limit
        self._kind = _CELLS if dimension >= _CELLS_DIMENSIONS else _GRAPH
        self._known: dict[str, tuple[Probe | None, float]] = {}
        self._cells: dict[str, int] = {}
        self._building: set[Connection] = set()
        self._guard = threading.Lock()
        self._given_up = False

    def probe(self, connection: Connection, domain: str) -> Probe | None:
        """How to search ``domain`` through its index; None when it has none.

        Raises:
            UnknownDomain: there is no such domain.
        """
        known = self._known.get(domain)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        row = connection.execute(
            "SELECT indexed AND to_regclass('face_service.' || %s) IS NOT NULL, reltuples, "
            "(SELECT substring(array_to_string(reloptions, ' ') FROM 'lists=([0-9]+)')::integer FROM pg_class "
            "WHERE oid = to_regclass('face_service.' || %s)) FROM face_service.domains "
            "LEFT JOIN pg_class ON pg_class.oid = to_regclass('face_service.' || partition_name) "
            "WHERE table_name = %s AND domain = %s",
            (
                self._tables.index_name(domain, _PEOPLE),
                self._tables.index_name(domain, _CELLS),
                self._tables.name,
                domain,
            ),
        ).fetchone()
        if row is None:
            raise UnknownDomain(f"pgvector holds no domain {domain!r} for the embedder {self._tables.model}")
        probe = Probe(_BREADTH_LEAST if row[2] else _breadth(row[1]), _looked_through(row[2])) if row[0] else None
        self._cells[domain] = row[2] or 0
        self._known[domain] = probe, time.monotonic() + _KNOWN_SECONDS
        return probe

    def used(self, domain: str) -> bool:
        """Whether the last :meth:`probe` of ``domain`` found an index; the database is not asked."""
        known = self._known.get(domain)
        return known is not None and known[0] is not None

    def changed(self, domain: str) -> None:
        """Ask again at the next search whether ``domain`` has an index."""
        self._known.pop(domain, None)

    def missing(self, connection: Connection) -> list[str]:
        """Domains that have outgrown an exact scan and have no index, or one that they have outgrown, too."""
        if self._dimension > _DIMENSIONS:
            return []
        rows = connection.execute(
            "SELECT domain FROM face_service.domains WHERE table_name = %s "
            "AND pg_table_size(to_regclass('face_service.' || partition_name)) > %s ORDER BY domain",
            (self._tables.name, self._exact_limit * self._dimension * 4),
        ).fetchall()
        return [domain for (domain,) in rows if self._lacks(connection, domain)]

    def _lacks(self, connection: Connection, domain: str) -> bool:
        try:
            probe = self.probe(connection, domain)
        except UnknownDomain:
            # Deleted since it was listed.
            return False
        if probe is None:
            return self._outgrown(connection, domain, self._exact_limit)
        cells = self._cells.get(domain, 0)
        if self._kind == _GRAPH or cells >= _CELLS_MOST:
            return False
        # Earlier versions made graphs of all embeddings.
        return self._outgrown(connection, domain, max(self._exact_limit, _GROWTH * _CELL_FACES * cells))

    def build(self, domain: str) -> bool:
        """Make the indexes of ``domain``; searches and writers go on meanwhile. False when another process is at it,
        or the domain needs none any more.

        Raises:
            StoreUnavailable: they could not be made; the search stays exact.
        """
        key = lock_key(self._tables.index_name(domain, _GRAPH), "index")
        with self._database.own_connection(_BUILD_SECONDS) as connection:
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
            if row is None or not row[0]:
                return False
            with self._guard:
                self._check_wanted()
                self._building.add(connection)
            try:
                made = self._make(connection, domain)
            finally:
                with self._guard:
                    self._building.discard(connection)
        self.changed(domain)
        return made

    def interrupt(self) -> None:
        """Give up what is being built, and begin nothing until :meth:`allow`."""
        deadline = time.monotonic() + _INTERRUPT_SECONDS
        self._given_up = True
        # A statement that only begins now is met the next time.
        while (building := self._at_work()) and (left := deadline - time.monotonic()) > 0:
            for connection in building:
                try:
                    connection.cancel_safe(timeout=left)
                except psycopg.Error as error:
                    _logger.warning("an index that is being built could not be given up: %s", error)
            time.sleep(_INTERRUPT_PAUSE)

    def allow(self) -> None:
        """From now on indexes are built again."""
        self._given_up = False

    def _at_work(self) -> list[Connection]:
        with self._guard:
            return list(self._building)

    def _check_wanted(self) -> None:
        if self._given_up:
            raise StoreUnavailable("the store was closed, no index is built")

    def forget(self, connection: Connection, domain: str) -> None:
        """Drop the indexes of ``domain``."""
        with connection.transaction():
            self._mark(connection, domain, indexed=False)
            self._drop(connection, domain, _GRAPH, _CELLS, _FRESH, _PEOPLE)
        self.changed(domain)

    def _make(self, connection: Connection, domain: str) -> bool:
        find_vector(connection)
        self.changed(domain)
        if not self._lacks(connection, domain):
            return False
        first = self.probe(connection, domain) is None
        faces = self._count(connection, domain)
        started = time.monotonic()
        meanwhile = "exact" if first else "as they were"
        _logger.info("domain %r: %d faces get an index, searches are %s meanwhile", domain, faces, meanwhile)
        set_timeouts(connection, _BUILD_SECONDS, _BUILD_SECONDS)
        if self._kind == _CELLS:
            self._allow_memory(connection, _cells_memory(self._dimension, faces), spare=0)
        else:
            self._allow_memory(connection, 0, spare=int(1.1 * faces * (2 * self._dimension + _NODE_BYTES)))
        if first:
            self._drop(connection, domain, _GRAPH, _CELLS)
            self._create(connection, domain, _PEOPLE, sql.SQL("hash (person)"))
        definition = _cells(self._dimension, faces) if self._kind == _CELLS else _graph(self._dimension)
        try:
            self._create(connection, domain, _FRESH, definition)
        except (errors.DiskFull, errors.OutOfMemory):
            # Processes that build together share memory under /dev/shm, of which a container has 64 MB.
            _logger.info("domain %r: the index is built by one process: there is too little shared memory", domain)
            connection.execute("SELECT set_config('max_parallel_maintenance_workers', '0', false)")
            self._create(connection, domain, _FRESH, definition)
        with connection.transaction():
            self._drop(connection, domain, _GRAPH, _CELLS)
            connection.execute(
                sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                    sql.Identifier("face_service", self._tables.index_name(domain, _FRESH)),
                    sql.Identifier(self._tables.index_name(domain, self._kind)),
                )
            )
            self._mark(connection, domain, indexed=True)
        _logger.info("domain %r has its index after %.0f s", domain, time.monotonic() - started)
        return True

    def _allow_memory(self, connection: Connection, needed: int, spare: int) -> None:
        """Bytes without which an index cannot be made, and those with which it is made faster, if there are so many.

        A graph that fits into memory is built many times faster; the server's buffers say how much it can spare.
        """
        connection.execute(
            "SELECT set_config('maintenance_work_mem', greatest("
            "pg_size_bytes(current_setting('maintenance_work_mem')), %s, "
            "least(%s, pg_size_bytes(current_setting('shared_buffers')))) / 1024 || 'kB', false)",
            (needed, min(_MEMORY_MOST, spare)),
        )

    def _mark(self, connection: Connection, domain: str, *, indexed: bool) -> None:
        connection.execute(
            "UPDATE face_service.domains SET indexed = %s WHERE table_name = %s AND domain = %s",
            (indexed, self._tables.name, domain),
        )

    def _count(self, connection: Connection, domain: str) -> int:
        try:
            row = connection.execute(
                sql.SQL("SELECT count(*) FROM {}").format(self._tables.partition(domain))
            ).fetchone()
        except errors.UndefinedTable as error:
            raise StoreUnavailable(f"domain {domain!r} was deleted meanwhile") from error
        return int(row[0]) if row is not None else 0

    def _outgrown(self, connection: Connection, domain: str, faces: int) -> bool:
        table = self._tables.partition(domain)
        query = sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {} LIMIT {}) AS first_faces")
        try:
            size = connection.execute("SELECT pg_table_size(%s::regclass)", (table.as_string(connection),)).fetchone()
            if size is None or (size[0] or 0) <= faces * self._dimension * 4:
                return False
            row = connection.execute(query.format(table, sql.Literal(faces + 1))).fetchone()
        except errors.UndefinedTable:
            # Deleted since it was listed.
            return False
        return row is not None and row[0] > faces

    def _create(self, connection: Connection, domain: str, suffix: str, definition: sql.Composable) -> None:
        self._check_wanted()
        self._drop(connection, domain, suffix)
        name = sql.Identifier(self._tables.index_name(domain, suffix))
        connection.execute(
            sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} USING {}").format(
                name, self._tables.partition(domain), definition
            )
        )

    def _drop(self, connection: Connection, domain: str, *suffixes: str) -> None:
        for suffix in suffixes:
            name = sql.Identifier("face_service", self._tables.index_name(domain, suffix))
            connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(name))


def _graph(dimension: int) -> sql.Composed:
    return sql.SQL("hnsw ((embedding::halfvec({})) halfvec_ip_ops) WITH (m = {}, ef_construction = {})").format(
        *map(sql.Literal, (dimension, _LINKS, _CONSTRUCTION))
    )


def _looked_through(cells: int | None) -> tuple[int, int] | None:
    if cells is None:
        return None
    first = max(_FIRST_LEAST, math.ceil(_FIRST * (cells / _CELLS_MOST) ** _FIRST_POWER))
    return min(cells, first), min(cells, _MORE * first)


def _cell_count(faces: int) -> int:
    return max(1, min(_CELLS_MOST, faces // _CELL_FACES))


def _cells_memory(dimension: int, faces: int) -> int:
    """What pgvector's k-means takes: 50 faces of each cell, at least 10,000, and their distances from all centres."""
    cells = _cell_count(faces)
    return int(1.2 * max(10_000, 50 * cells) * (2 * dimension + 4 * cells + 100)) + 2**26


def _cells(dimension: int, faces: int) -> sql.Composed:
    return sql.SQL("ivfflat ((embedding::halfvec({})) halfvec_ip_ops) WITH (lists = {})").format(
        *map(sql.Literal, (dimension, _cell_count(faces)))
    )


def _breadth(faces: float) -> int:
    breadth: float = _BREADTH * (max(faces, 1) / _BREADTH_FACES) ** _BREADTH_POWER
    return int(min(BREADTH_MOST, max(_BREADTH_LEAST, breadth)))
