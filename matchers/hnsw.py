"""Indexes of domains that have outgrown an exact scan: HNSW on embeddings in half precision, and one on people.

The first gives candidates, which are compared exactly. Pictures of one person lie close together, and of those an HNSW
graph may reach some and miss others; the second index brings all faces of the people who are near, so that who was
found at all is compared with every picture.
"""

from __future__ import annotations

import logging
import threading
import time

from psycopg import errors, sql

from matchers.database import Connection, Database, find_vector, lock_key, set_timeouts
from matchers.errors import StoreUnavailable, UnknownDomain
from matchers.tables import FaceTables

BREADTH_MOST = 1000
"""pgvector's limit for ``hnsw.ef_search``."""

_BUILD_SECONDS = 6 * 3600.0

# Links of a node and candidates while it is put in: the graph of 100,000 faces with five pictures of each person finds
# who is nearest for all of 500 queries, pgvector's own 16 and 64 for 99 % (python -m benchmarks.pgvector_search).
_LINKS, _CONSTRUCTION = 24, 100
# Candidates of a search in 100,000 faces, and how they grow with a domain: of a million faces in 200,000 groups that
# have nothing in common, 600 candidates find 99.7 % of what an exact search finds, 300 find 96 %.
_BREADTH, _BREADTH_FACES, _BREADTH_POWER = 150, 100_000, 0.6
_BREADTH_LEAST = 100
# pgvector's limit for an HNSW index on halfvec (its README, "HNSW").
_DIMENSIONS = 4000
_KNOWN_SECONDS = 5.0
# What pgvector keeps of a node while it builds, beside its numbers: links with their distances, and a header.
_NODE_BYTES = 1700
_MEMORY_MOST = 4 * 2**30

_logger = logging.getLogger(__name__)


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
        self._known: dict[str, tuple[int | None, float]] = {}
        self._building: set[Connection] = set()
        self._guard = threading.Lock()

    def breadth(self, connection: Connection, domain: str) -> int | None:
        """How many candidates a search of ``domain`` takes from its index; None when it has none.

        Raises:
            UnknownDomain: there is no such domain.
        """
        known = self._known.get(domain)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        row = connection.execute(
            "SELECT indexed AND to_regclass('face_service.' || %s) IS NOT NULL, reltuples FROM face_service.domains "
            "LEFT JOIN pg_class ON pg_class.oid = to_regclass('face_service.' || partition_name) "
            "WHERE table_name = %s AND domain = %s",
            (self._people_index(domain), self._tables.name, domain),
        ).fetchone()
        if row is None:
            raise UnknownDomain(f"pgvector holds no domain {domain!r} for the embedder {self._tables.model}")
        breadth = _breadth(row[1]) if row[0] else None
        self._known[domain] = breadth, time.monotonic() + _KNOWN_SECONDS
        return breadth

    def changed(self, domain: str) -> None:
        """Ask again at the next search whether ``domain`` has an index."""
        self._known.pop(domain, None)

    def missing(self, connection: Connection) -> list[str]:
        """Domains that have outgrown an exact scan and have no index."""
        if self._dimension > _DIMENSIONS:
            return []
        rows = connection.execute(
            "SELECT domain FROM face_service.domains WHERE table_name = %s "
            "AND pg_table_size(to_regclass('face_service.' || partition_name)) > %s ORDER BY domain",
            (self._tables.name, self._exact_limit * self._dimension * 4),
        ).fetchall()
        return [row[0] for row in rows if self.breadth(connection, row[0]) is None and self._outgrown(connection, *row)]

    def build(self, domain: str) -> bool:
        """Make the indexes of ``domain``; searches and writers go on meanwhile. False when another process is at it.

        Raises:
            StoreUnavailable: they could not be made; the search stays exact.
        """
        name = self._tables.index_name(domain)
        with self._database.own_connection(_BUILD_SECONDS) as connection:
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", (lock_key(name, "index"),)).fetchone()
            if row is None or not row[0]:
                return False
            with self._guard:
                self._building.add(connection)
            try:
                self._make(connection, domain, name)
            finally:
                with self._guard:
                    self._building.discard(connection)
        self.changed(domain)
        return True

    def interrupt(self) -> None:
        """Give up what is being built."""
        with self._guard:
            for connection in self._building:
                connection.cancel_safe(timeout=5.0)

    def forget(self, connection: Connection, domain: str) -> None:
        """Drop the indexes of ``domain``."""
        with connection.transaction():
            self._mark(connection, domain, indexed=False)
            for name in (self._tables.index_name(domain), self._people_index(domain)):
                connection.execute(_drop(name))
        self.changed(domain)

    def _make(self, connection: Connection, domain: str, name: str) -> None:
        find_vector(connection)
        faces = self._count(connection, domain)
        started = time.monotonic()
        _logger.info("domain %r: %d faces get an index, searches are exact meanwhile", domain, faces)
        set_timeouts(connection, _BUILD_SECONDS, _BUILD_SECONDS)
        self._allow_memory(connection, faces)
        partition, people = self._tables.partition(domain), self._people_index(domain)
        for old in (people, name):
            connection.execute(_drop(old))
        connection.execute(
            sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} USING hash (person)").format(sql.Identifier(people), partition)
        )
        graph = sql.SQL(
            "CREATE INDEX CONCURRENTLY {} ON {} USING hnsw ((embedding::halfvec({})) halfvec_ip_ops) "
            "WITH (m = {}, ef_construction = {})"
        ).format(
            sql.Identifier(name),
            partition,
            *map(sql.Literal, (self._dimension, _LINKS, _CONSTRUCTION)),
        )
        try:
            connection.execute(graph)
        except (errors.DiskFull, errors.OutOfMemory):
            # Processes that build together share memory under /dev/shm, of which a container has 64 MB.
            _logger.info("domain %r: the index is built by one process: there is too little shared memory", domain)
            connection.execute(_drop(name))
            connection.execute("SELECT set_config('max_parallel_maintenance_workers', '0', false)")
            connection.execute(graph)
        self._mark(connection, domain, indexed=True)
        _logger.info("domain %r has its index after %.0f s", domain, time.monotonic() - started)

    def _allow_memory(self, connection: Connection, faces: int) -> None:
        """A graph that fits into memory is built many times faster; the server's buffers say how much it can spare."""
        needed = min(_MEMORY_MOST, int(1.1 * faces * (2 * self._dimension + _NODE_BYTES)))
        connection.execute(
            "SELECT set_config('maintenance_work_mem', greatest("
            "pg_size_bytes(current_setting('maintenance_work_mem')), "
            "least(%s, pg_size_bytes(current_setting('shared_buffers')))) / 1024 || 'kB', false)",
            (needed,),
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

    def _outgrown(self, connection: Connection, domain: str) -> bool:
        query = sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {} LIMIT {}) AS first_faces")
        limit = sql.Literal(self._exact_limit + 1)
        row = connection.execute(query.format(self._tables.partition(domain), limit)).fetchone()
        return row is not None and row[0] > self._exact_limit

    def _people_index(self, domain: str) -> str:
        return self._tables.index_name(domain).removesuffix("hnsw") + "people"


def _breadth(faces: float) -> int:
    breadth: float = _BREADTH * (max(faces, 1) / _BREADTH_FACES) ** _BREADTH_POWER
    return int(min(BREADTH_MOST, max(_BREADTH_LEAST, breadth)))


def _drop(index: str) -> sql.Composed:
    return sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier("face_service", index))
