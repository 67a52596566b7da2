"""Search of PKL galleries: how fast, whether exact, how soon they are open, and what a change costs.

``python -m benchmarks.pkl_search`` fills galleries of made-up people under a scratch folder and searches them through
``PklStore``, beside numpy (a product in single precision), faiss (half precision) and, up to 10,000 faces,
``DeepFace.find`` on the very same file. Then two workers open it, to see what they share. A million faces of 512
numbers need 9 GB of disk and 8 GB of memory.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.clusters import Clusters
from benchmarks.peers import add_options, environment, worker
from benchmarks.report import RESULTS, Cell, Report, interleaved, median, percentile
from matchers.base import FloatArray, Match
from matchers.gallery import PklStore
from matchers.matrix_file import matrix_path
from tests.matchers.tiny import make_card

TOP_K = 10
DOMAIN = "big"
DEEPFACE_MOST = 10_000
UNPICKLED_MOST = 100_000
BATCH = 8
WORKERS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when an answer was not the exact one."""
    options = _parse(arguments)
    report = Report(
        "pkl_search",
        "Search in PKL galleries",
        f"{TOP_K} nearest faces of one query, {options.dimension} numbers each, on one core but for numpy and faiss. "
        "*ours* is `PklStore.search` with names and all; numpy is a product in single precision and `argpartition`; "
        "faiss is `IndexScalarQuantizer` in half precision, without names; DeepFace is `DeepFace.find` on the same "
        "file, its embedding given. *exact*: queries whose ten nearest, in order, are those of double precision. "
        f"*worker*: memory of each of {WORKERS} processes in which the gallery is present, and its share of it.",
        peers=("simsimd",),
    )
    exact = True
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.scratch) as folder:
        for size in options.sizes:
            row = _measure(report, Clusters(size, options.dimension), Path(folder) / str(size), options)
            exact = exact and row["exact"] == 1
            report.add(row)
            gc.collect()
    report.plot("faces", ["ours, ms", "numpy, ms", "faiss fp16, ms", "DeepFace.find, ms"], "milliseconds a query")
    report.plot("faces", ["open, ms", "open first, ms", "add one face, ms"], "milliseconds")
    report.finish(options.output or RESULTS)
    return int(not exact)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pkl_search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[1000, 10_000, 100_000, 1_000_000], metavar="N", help="faces"
    )
    parser.add_argument("--queries", type=int, default=50, metavar="N", help="default: %(default)s")
    parser.add_argument("--dimension", type=int, default=512, metavar="N", help="default: %(default)s")
    parser.add_argument("--no-peers", action="store_true", help="measure only ours and numpy, make no environment")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where the galleries lie meanwhile")
    add_options(parser)
    return parser.parse_args(arguments)


def _measure(report: Report, clusters: Clusters, folder: Path, options: argparse.Namespace) -> dict[str, Cell]:
    card = make_card("arcface", clusters.dimension)
    rows, queries = clusters.rows(), clusters.queries(options.queries)
    store = PklStore(folder, card, "skip")
    filled = _seconds(lambda: store.apply(DOMAIN, [clusters.face(n, row) for n, row in enumerate(rows)], ()))
    extra = clusters.face(0, rows[0])
    adding = _seconds(lambda: store.apply(DOMAIN, [extra], ()))
    opening = min(_seconds(lambda: PklStore(folder, card, "skip").count(DOMAIN)) for _ in range(3))
    first = None
    if clusters.faces <= UNPICKLED_MOST:
        matrix_path(store.path(DOMAIN)).unlink(missing_ok=True)
        first = _seconds(lambda: PklStore(folder, card, "skip").count(DOMAIN)) * 1000
    gc.collect()
    turn = iter(range(10**9))

    def ask() -> int:
        return next(turn) % len(queries)

    np.save(folder / "queries.npy", queries)
    with ExitStack() as stack:
        calls = {
            "ours": lambda: store.search(queries[(n := ask()) : n + 1], DOMAIN, None, TOP_K),
            "numpy": lambda: _brute_force(queries[ask()], rows),
            "batch": lambda: store.search(queries[:BATCH], DOMAIN, None, TOP_K),
        }
        found: dict[str, list[float]] = {}
        if not options.no_peers:
            np.save(folder / "rows.npy", rows)
            peers = {"faiss": ("faiss", str(folder / "rows.npy"))}
            if clusters.faces <= DEEPFACE_MOST:
                peers["deepface-0.0.96"] = ("deepface", str(store.path(DOMAIN).parent))
            for name, (kind, data) in peers.items():
                python = environment(name, options.venv)
                arguments = (kind, data, str(folder / "queries.npy"))
                peer = stack.enter_context(worker(name, python, *arguments, script="search_worker.py"))
                report.facts[kind] = peer.about
                found[kind] = []
                calls[kind] = lambda peer=peer, kind=kind: found[kind].append(peer.ask(query=ask())["ms"])
        times = {**interleaved(calls, options.queries, seconds=90), **found}
    shared = _workers(folder, folder / "queries.npy")
    answers = [store.search(query[None], DOMAIN, None, TOP_K)[0] for query in queries]
    bandwidth = rows.nbytes / min(_seconds(rows.max) for _ in range(3)) / 1e9
    return {
        "faces": clusters.faces,
        "ours, ms": median(times["ours"]),
        "p95, ms": percentile(times["ours"], 95),
        f"{BATCH} faces at once, ms": median(times["batch"]),
        "exact": sum(map(_is_exact, answers, queries, [rows] * len(queries))) / len(queries),
        "numpy, ms": median(times["numpy"]),
        "faiss fp16, ms": median(times["faiss"]) if "faiss" in times else None,
        "DeepFace.find, ms": median(times["deepface"]) if "deepface" in times else None,
        "memory, GB/s": bandwidth,
        "codes read, GB/s": rows.nbytes / 4 / median(times["ours"]) / 1e6,
        "open, ms": opening * 1000,
        "open first, ms": first,
        "add one face, ms": adding * 1000,
        "filled, faces/s": round(clusters.faces / filled),
        "worker, MB": shared["Rss"],
        "its share, MB": shared["Pss"],
    }


def _workers(galleries: Path, queries: Path) -> dict[str, float]:
    """Memory of the gallery in one of several processes that search it; see ``benchmarks/gallery_worker.py``."""
    python = Path(sys.executable)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                worker(f"gallery-{number}", python, str(galleries), str(queries), script="gallery_worker.py")
            )
            for number in range(WORKERS)
        ]
        return workers[0].ask()


def _brute_force(query: FloatArray, rows: FloatArray) -> FloatArray:
    likeness = rows @ query
    best = np.argpartition(-likeness, TOP_K)[:TOP_K]
    return np.asarray(best[np.argsort(-likeness[best])])


def _is_exact(matches: list[Match], query: FloatArray, rows: FloatArray) -> bool:
    """Against double precision, over all rows whose single precision could belong to the answer."""
    likeness = rows @ query
    near = np.flatnonzero(likeness >= np.partition(likeness, -TOP_K)[-TOP_K] - 1e-4)
    distances = 1 - (rows[near].astype(np.float64) * query).sum(axis=1)
    expected = sorted(
        (distance, Clusters.source(number)) for distance, number in zip(distances, near.tolist(), strict=True)
    )
    return [(match.distance, match.source) for match in matches] == expected[:TOP_K]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
