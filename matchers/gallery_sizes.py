"""How both stores agree as a gallery grows, measured on parts of a real one, beside the real stores.

Faces of the domain are copied into scratch galleries: PKL files in a folder that is deleted afterwards, and rows in a
table of their own in the same database, which is dropped afterwards. The domain itself is only read.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from matchers.base import FloatArray, GalleryFace, GalleryStore
from matchers.compare import compare
from matchers.gallery import PklStore
from matchers.pgvector import PgvectorStore
from matchers.service import Stores
from matchers.validation import SizePoint
from models.card import ModelCard

SMALLEST = 8
LARGEST = 20_000
"""Larger galleries are not copied: it would take minutes to build their index."""
QUERIES = 200

_STEPS = 5
_DOMAIN = "scratch"
_TOP_K = 10

Progress = Callable[[int, int], None]


def sizes_for(faces: int) -> list[int]:
    """Up to five sizes, each twice the one before, to the smaller of ``faces`` and :data:`LARGEST`."""
    top = min(faces, LARGEST)
    return sorted({size for step in range(_STEPS) if (size := top >> step) >= SMALLEST})


def agreement_over_size(
    stores: Stores,
    pgvector: PgvectorStore,
    embedder: ModelCard,
    domain: str,
    queries: FloatArray,
    *,
    progress: Progress,
) -> list[SizePoint]:
    """Search ``queries`` ((n, d) float32, unit rows) in random parts of ``domain``, each part within the next larger.

    Raises:
        StoreUnavailable: a scratch gallery cannot be written.
    """
    faces = _shuffled(stores.pkl.faces(domain) or pgvector.faces(domain), seed=0)
    chosen = queries[np.random.default_rng(0).permutation(len(queries))[:QUERIES]]
    sizes = sizes_for(len(faces))
    points = []
    with _scratch(stores.data_dir, pgvector, embedder) as (pkl, table):
        held = 0
        for done, size in enumerate(sizes):
            progress(done, len(sizes))
            for store in (pkl, table):
                store.apply(_DOMAIN, faces[held:size], ())
            held = size
            points.append(_measure(pkl, table, size, chosen))
        progress(len(sizes), len(sizes))
    return points


def _measure(pkl: GalleryStore, pgvector: GalleryStore, size: int, queries: FloatArray) -> SizePoint:
    comparisons, times = [], np.empty((len(queries), 2))
    for row, query in enumerate(queries):
        results = []
        for column, store in enumerate((pkl, pgvector)):
            start = time.perf_counter()
            results.append(store.search(query[None], _DOMAIN, None, _TOP_K)[0])
            times[row, column] = (time.perf_counter() - start) * 1000
        comparisons.append(compare(results[0], results[1]))
    pkl_ms, pgvector_ms = (float(value) for value in np.median(times, axis=0))
    return SizePoint(
        size=size,
        top1_rate=float(np.mean([comparison.top1_match for comparison in comparisons])),
        top5_overlap=float(np.mean([comparison.top5_overlap for comparison in comparisons])),
        max_distance_delta=max(comparison.max_distance_delta for comparison in comparisons),
        pkl_ms=pkl_ms,
        pgvector_ms=pgvector_ms,
    )


def _shuffled(faces: Sequence[GalleryFace], seed: int) -> list[GalleryFace]:
    """One face of each source, since a store replaces the faces of a source together."""
    firsts = list({face.source: face for face in reversed(faces)}.values())
    return [firsts[index] for index in np.random.default_rng(seed).permutation(len(firsts))]


@contextmanager
def _scratch(data_dir: Path, pgvector: PgvectorStore, embedder: ModelCard) -> Iterator[tuple[PklStore, PgvectorStore]]:
    """An empty store of each kind that nobody else sees."""
    name = f"{embedder.name}-scratch-{time.time_ns():x}"
    with tempfile.TemporaryDirectory(prefix=".scratch-", dir=data_dir) as folder, pgvector.beside(name) as table:
        try:
            yield PklStore(Path(folder), embedder, "scratch"), table
        finally:
            table.erase()
