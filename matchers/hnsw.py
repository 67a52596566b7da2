"""Indexes of domains that have outgrown an exact scan: an HNSW graph of the embeddings, and one on people.

The first (:mod:`matchers.graphs`) gives candidates, which are compared exactly. Pictures of one person lie close
together, and of those an HNSW graph may reach some and miss others; the second index brings all faces of the people who
are near, so that who was found at all is compared with every picture.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from psycopg import errors, sql

from matchers.database import Connection, Database, find_vector, lock_key, set_timeouts
from matchers.errors import StoreUnavailable, UnknownDomain
from matchers.graphs import BITS, HALVES, Graph, best_graph
from matchers.tables import FaceTables

BREADTH_MOST = 1000
"""pgvector's limit for ``hnsw.ef_search``."""

_BUILD_SECONDS = 6 * 3600.0

# Candidates of a search in 100,000 faces, and how they grow with a domain: of a million faces in 200,000 groups that
# have nothing in common, 600 candidates find 99.7 % of what an exact search finds, 300 find 96 %.
_BREADTH, _BREADTH_FACES, _BREADTH_POWER = 150, 100_000, 0.6
_BREADTH_LEAST = 100
_KNOWN_SECONDS = 5.0
_MEMORY_MOST = 4 * 2**30

_GRAPHS = (BITS, HALVES)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probe:
    """How a search goes through the index of a domain: which graph, and for how many candidates."""

    graph: Graph
    breadth: int


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
        self._best = best_graph(dimension)
        self._known: dict[str, tuple[Probe | None, float]] = {}
        self._building: set[Connection] = set()
        self._guard = threading.Lock()

    def probe(self, connection: Connection, domain: str) -> Probe | None:
        """How to search ``domain`` through its index; None when it has none.

        Raises:
            UnknownDomain: there is no such domain.
        """
        known = self._known.get(domain)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        row = connection.execute(
            "SELECT indexed, faces.reltuples, ARRAY(SELECT one.relname::text FROM pg_index "
            "JOIN pg_class AS one ON one.oid = indexrelid WHERE indrelid = faces.oid AND indisvalid) "
            "FROM face_service.domains LEFT JOIN pg_class AS faces "
            "ON faces.oid = to_regclass('face_service.' || partition_name) WHERE table_name = %s AND domain = %s",
            (self._tables.name, domain),
        ).fetchone()
        if row is None:
            raise UnknownDomain(f"pgvector holds no domain {domain!r} for the embedder {self._tables.model}")
        indexed, faces, names = row
        probe = None
        if indexed and self._people_index(domain) in names:
            graphs = [graph for graph in (self._best, *_GRAPHS) if self._graph_index(domain, graph) in names]
            probe = Probe(graphs[0], _breadth(faces)) if graphs else None
        self._known[domain] = probe, time.monotonic() + _KNOWN_SECONDS
        return probe

    def changed(self, domain: str) -> None:
        """Ask again at the next search whether ``domain`` has an index."""
        self._known.pop(domain, None)

    def missing(self, connection: Connection) -> list[str]:
        """Domains that have outgrown an exact scan and have no index, or one that is made in a better way by now."""
        rows = connection.execute(
            "SELECT domain FROM face_service.domains WHERE table_name = %s "
            "AND pg_table_size(to_regclass('face_service.' || partition_name)) > %s ORDER BY domain",
            (self._tables.name, self._exact_limit * self._dimension * 4),
        ).fetchall()
        return [row[0] for row in rows if self._lacks(connection, *row)]

    def _lacks(self, connection: Connection, domain: str) -> bool:
        probe = self.probe(connection, domain)
        return probe.graph != self._best if probe is not None else self._outgrown(connection, domain)

    def build(self, domain: str) -> bool:
        """Make the indexes of ``domain``; searches and writers go on meanwhile. False when another process is at it.

        Raises:
            StoreUnavailable: they could not be made; the search stays exact.
        """
        key = lock_key(self._graph_index(domain, HALVES), "index")
        with self._database.own_connection(_BUILD_SECONDS) as connection:
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
            if row is None or not row[0]:
                return False
            with self._guard:
                self._building.add(connection)
            try:
                self._make(connection, domain)
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
            self._drop(connection, self._people_index(domain), *self._graph_indexes(domain))
        self.changed(domain)

    def _make(self, connection: Connection, domain: str) -> None:
        find_vector(connection)
        faces = self._count(connection, domain)
        started = time.monotonic()
        self.changed(domain)
        old = self.probe(connection, domain)
        if old is not None and old.graph == self._best:
            return
        meanwhile = "exact" if old is None else "through the old one"
        _logger.info("domain %r: %d faces get an index, searches are %s meanwhile", domain, faces, meanwhile)
        set_timeouts(connection, _BUILD_SECONDS, _BUILD_SECONDS)
        self._allow_memory(connection, faces)
        partition, people = self._tables.partition(domain), self._people_index(domain)
        if old is None:
            self._drop(connection, people, *self._graph_indexes(domain))
            connection.execute(
                sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} USING hash (person)").format(
                    sql.Identifier(people), partition
                )
            )
        name = self._graph_index(domain, self._best)
        self._drop(connection, name)
        graph = self._best.definition(name, partition, self._dimension)
        try:
            connection.execute(graph)
        except (errors.DiskFull, errors.OutOfMemory):
            # Processes that build together share memory under /dev/shm, of which a container has 64 MB.
            _logger.info("domain %r: the index is built by one process: there is too little shared memory", domain)
            self._drop(connection, name)
            connection.execute("SELECT set_config('max_parallel_maintenance_workers', '0', false)")
            connection.execute(graph)
        self._mark(connection, domain, indexed=True)
        _logger.info("domain %r has its index after %.0f s", domain, time.monotonic() - started)
        if old is not None:
            # Until then other processes may search through the old one.
            connection.execute("SELECT pg_sleep(%s)", (_KNOWN_SECONDS,))
            self._drop(connection, self._graph_index(domain, old.graph))

    def _allow_memory(self, connection: Connection, faces: int) -> None:
        """A graph that fits into memory is built many times faster; the server's buffers say how much it can spare."""
        needed = min(_MEMORY_MOST, self._best.memory(faces, self._dimension))
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
        return self._tables.index_name(domain, "people")

    def _graph_index(self, domain: str, graph: Graph) -> str:
        return self._tables.index_name(domain, graph.suffix)

    def _graph_indexes(self, domain: str) -> list[str]:
        return [self._graph_index(domain, graph) for graph in _GRAPHS]

    def _drop(self, connection: Connection, *indexes: str) -> None:
        for index in indexes:
            connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier("face_service", index)))


def _breadth(faces: float) -> int:
    breadth: float = _BREADTH * (max(faces, 1) / _BREADTH_FACES) ** _BREADTH_POWER
    return int(min(BREADTH_MOST, max(_BREADTH_LEAST, breadth)))
