"""Pictures searched in this process: in PKL, in pgvector, and in both."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from matchers.breaker import CircuitBreaker
from matchers.differences import differences
from matchers.dual import PKL_FAILED, Outcome, Searcher
from matchers.errors import StoreUnavailable
from matchers.gallery_sizes import LARGEST, SMALLEST, agreement_over_size
from matchers.pgvector import PgvectorStore
from matchers.preferences import domain_threshold
from matchers.service import Stores
from matchers.validation import (
    Context,
    FaceAnswer,
    Image,
    PictureAnswer,
    SizePoint,
    ValidationError,
)
from models.settings import Mode, Settings
from runtime.engine import FaceEngine
from runtime.errors import ImageError
from runtime.faces import Analysis, FloatArray

THREADS = 2
WAYS: Mapping[Mode, str] = {"pkl_only": "PKL alone", "pgvector_only": "pgvector alone", "dual": "dual"}

Progress = Callable[[int, int], None]
Bar = Callable[[str], Progress]


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A picture, analysed: its digest and faces, or why there are none."""

    image: Image
    digest: str = ""
    analysis: Analysis | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Here:
    """What is searched in this process."""

    engine: FaceEngine
    stores: Stores
    settings: Settings
    domain: str


@dataclass(frozen=True, slots=True)
class _Ask:
    """What every picture is searched with."""

    domain: str
    top_k: int
    threshold: float


def run_here(
    here: Here, images: Sequence[Image], bar: Bar, *, leave_one_out: bool, sizes: bool
) -> tuple[list[PictureAnswer], Context]:
    """Search every picture of ``images``; first all are embedded, then searched one after the other, to time that.

    Args:
        bar: starts a progress bar with a text.
        sizes: measure the agreement over the size of the gallery too.

    Raises:
        NoPgvector: pgvector is switched off.
        ValidationError: a store does not hold the domain.
        StoreUnavailable: pgvector does not answer at all.
    """
    engine, stores, settings, domain = here.engine, here.stores, here.settings, here.domain
    pgvector = stores.needed_pgvector()
    holdings = stores.pkl.inventory(domain), pgvector.inventory(domain)
    for name, store in (("the PKL galleries", stores.pkl), ("pgvector", pgvector)):
        if domain not in store.domains():
            raise ValidationError(
                f"{name} hold no domain {domain!r}. Fill both stores first: "
                f"python -m matchers sync --domain {domain} --images DIR"
            )
    differing = len(differences(stores, domain))
    progress = bar("Reading pictures")
    read = []
    with ThreadPoolExecutor(THREADS, "validate") as pool:
        for done, result in enumerate(pool.map(partial(_read, engine), images), start=1):
            read.append(result)
            progress(done, len(images))
    searcher = Searcher(stores.pkl, pgvector, CircuitBreaker(), settings.pgvector_timeout)
    ask = _Ask(domain, settings.top_k, domain_threshold(settings, engine.embedder_card, domain))
    progress = bar("Searching")
    answers = []
    for done, result in enumerate(read, start=1):
        answers.append(_search(searcher, result, ask, holdings))
        progress(done, len(read))
    points, note = _sizes(here, pgvector, read, bar("Growing galleries")) if sizes else ([], "")
    context = Context(
        domain=domain,
        where="in this process",
        models=f"{engine.detector_card.name} + {engine.embedder_card.name}",
        threshold=ask.threshold,
        differences=differing,
        in_pkl=frozenset(holdings[0]),
        in_pgvector=frozenset(holdings[1]),
        indexed=pgvector.indexed(domain) if not any(answer.failed for answer in answers) else False,
        leave_one_out=leave_one_out,
        sizes=points,
        sizes_note=note,
    )
    return answers, context


def _read(engine: FaceEngine, image: Image) -> _Read:
    try:
        size, most = image.path.stat().st_size, engine.limits.max_bytes
        if size > most:
            return _Read(image, problem=f"The file has {size:,} bytes; at most {most:,} are taken.")
        data = image.path.read_bytes()
        analysis = engine.analyze(data)
    except OSError as error:
        return _Read(image, problem=f"The file cannot be read: {error.strerror}.")
    except ImageError as error:
        return _Read(image, problem=str(error))
    return _Read(image, hashlib.sha1(data, usedforsecurity=False).hexdigest(), analysis)


def _search(
    searcher: Searcher, read: _Read, ask: _Ask, holdings: tuple[Mapping[str, str], Mapping[str, str]]
) -> PictureAnswer:
    if read.analysis is None:
        return PictureAnswer(read.image, problem=read.problem)
    if not len(read.analysis.detections):
        return PictureAnswer(read.image, compared=True)
    own = _own(read, holdings)
    # With the picture's own faces left out, as many matches as usual shall be left.
    depth = ask.top_k + len(own)
    times: dict[str, float] = {}
    outcome: Outcome | None = None
    for mode, way in WAYS.items():
        start = time.perf_counter()
        outcome = searcher.search(read.analysis.embeddings, ask.domain, mode, depth, ask.threshold)
        if outcome.mode == mode:
            times[way] = (time.perf_counter() - start) * 1000
    assert outcome is not None
    if outcome.mode == PKL_FAILED:
        raise ValidationError(f"the PKL gallery of domain {ask.domain!r} cannot be read; the log says why")
    answer = PictureAnswer(read.image, compared=True, pkl_ms=outcome.timing_ms.get("search_pkl"), times=times)
    if outcome.pkl is None or outcome.pgvector is None or outcome.comparisons is None:
        return replace(answer, failed=True)
    faces = [
        FaceAnswer((x, y, width, height), pkl, pgvector, comparison, own)
        for (x, y, width, height), pkl, pgvector, comparison in zip(
            np.rint(read.analysis.detections.boxes).astype(int).tolist(),
            outcome.pkl,
            outcome.pgvector,
            outcome.comparisons,
            strict=True,
        )
    ]
    return replace(answer, faces=faces, pgvector_ms=outcome.timing_ms["search_pgvector"])


def _own(read: _Read, holdings: tuple[Mapping[str, str], Mapping[str, str]]) -> frozenset[str]:
    """Sources of the enrolled faces that come from this very picture: the same bytes, or the same name."""
    same = {source for held in holdings for source, digest in held.items() if digest == read.digest}
    return frozenset(same | {read.image.source for held in holdings if read.image.source in held})


def _sizes(
    here: Here, pgvector: PgvectorStore, read: Sequence[_Read], progress: Progress
) -> tuple[list[SizePoint], str]:
    embedder = here.engine.embedder_card
    found = [result.analysis.embeddings for result in read if result.analysis is not None]
    queries: FloatArray = np.concatenate([*found, np.empty((0, embedder.dimension), np.float32)])
    held = here.stores.pkl.count(here.domain)
    if not len(queries) or held < SMALLEST:
        return [], f"Not measured: it takes faces to search and at least {SMALLEST} in the gallery."
    try:
        points = agreement_over_size(here.stores, pgvector, embedder, here.domain, queries, progress=progress)
    except StoreUnavailable as error:
        return [], f"Not measured: {error}."
    note = (
        "Random parts of the gallery, each within the next larger one, were copied into scratch galleries beside the "
        "real ones and deleted afterwards."
    )
    return points, note + (f" Parts of more than {LARGEST:,} faces are not copied." if held > LARGEST else "")
