"""One set of embeddings, searched in PKL, in pgvector, or in both at once.

pgvector is a guest here: whatever happens to it (down, slow, hanging), the answer comes from PKL.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from matchers.base import FloatArray, GalleryStore, Query, Results
from matchers.breaker import CircuitBreaker
from matchers.compare import Comparison, compare
from matchers.crew import Crew
from matchers.errors import GalleryError, StoreUnavailable, UnknownDomain
from models.settings import Mode

PGVECTOR_FAILED = "pkl_only (pgvector failed)"
PKL_FAILED = "pgvector_only (pkl failed)"

# A PKL search that takes no longer in its thread is not worth another thread for pgvector beside it.
_QUICK_SECONDS = 0.001

_log = logging.getLogger("matchers.dual")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the stores answered for the faces of one picture.

    Attributes:
        mode: what really happened: ``pkl_only``, ``pgvector_only``, ``dual``, ``pkl_only (pgvector failed)`` or
            ``pgvector_only (pkl failed)``.
        pkl: one list per face, nearest first; None when PKL was not asked.
        pgvector: the same from pgvector; None when it was not asked or failed.
        comparisons: one per face; None unless both answered.
        timing_ms: milliseconds by stage: ``search_pkl``, ``search_pgvector``, ``compare``.
        compared: both stores were to be searched, whatever came of it.
        error: why one of them gave no answer, "" when none was missing.
    """

    mode: str
    pkl: Results | None
    pgvector: Results | None
    comparisons: list[Comparison] | None
    timing_ms: dict[str, float]
    compared: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Side:
    """One store's answer; ``results`` is None when it does not know the domain."""

    results: Results | None
    milliseconds: float


@runtime_checkable
class PromptStore(GalleryStore, Protocol):
    """A store that can say at once that it would have to wait."""

    def search_at_once(
        self, query: Query, seconds: float, meanwhile: Callable[[], None] | None = None
    ) -> Results | None:
        """As ``search``, given up after ``seconds``; None, at once, when it may not even be begun in time.

        ``meanwhile`` may be called, once, while the store is waited for; it raises nothing.
        """


@runtime_checkable
class IndexedStore(GalleryStore, Protocol):
    """A store that searches some domains through an index which may miss faces."""

    def approximates(self, domain: str) -> bool:
        """Whether the last search of ``domain`` went through such an index; answered at once."""


class Searcher:
    """Searches by mode. Thread-safe.

    pgvector is asked in a daemon thread beside PKL, so that a call that hangs holds up neither the request nor the end
    of the process. Where PKL is quick, that would cost more than it gains: as long as a connection to pgvector is idle,
    it is asked in the same thread, and PKL searched until its answer comes. ``max_pending`` may ask it at once; one
    more counts as a failure of pgvector.
    """

    def __init__(
        self,
        pkl: GalleryStore,
        pgvector: GalleryStore | None,
        breaker: CircuitBreaker,
        timeout: float,
        max_pending: int = 64,
    ) -> None:
        """``timeout``: seconds that a request waits for pgvector at most."""
        self.pkl = pkl
        self.pgvector = pgvector
        self.breaker = breaker
        self.timeout = timeout
        self.max_pending = max_pending
        self._slots = threading.BoundedSemaphore(max_pending)
        self._crew = Crew("pgvector-search")
        self._prompt = pgvector if isinstance(pgvector, PromptStore) else None
        self._indexed = pgvector if isinstance(pgvector, IndexedStore) else None
        self._quick: dict[str, bool] = {}

    def search(
        self, embeddings: FloatArray, domain: str, mode: Mode, top_k: int, threshold: float | None = None
    ) -> Outcome:
        """The nearest ``top_k`` faces of ``domain`` for each row of ``embeddings`` ((n, d) float32, unit rows).

        ``threshold`` is the cosine distance up to which two faces count as one person. It drops nothing: comparisons
        do not count what an approximate index of pgvector missed beyond it (:func:`matchers.compare.counted`); None
        counts everything.

        In ``dual`` a domain that pgvector does not know counts as empty there, and the comparison shows it. When PKL's
        gallery is gone or cannot be read, pgvector answers and the outcome's mode says so. When pgvector fails, in
        ``dual`` and in ``pgvector_only``, PKL answers and the outcome's mode says so.

        Raises:
            UnknownDomain: no store that answered knows the domain.
            StoreUnavailable: pgvector failed and PKL does not know the domain.
            GalleryError: the PKL gallery cannot be read and pgvector does not answer instead.
        """
        query = Query(embeddings, domain, top_k)
        if mode == "pkl_only":
            return self._search_pkl(query)
        if mode == "pgvector_only":
            return self._search_pgvector(query)
        return self._search_both(query, threshold)

    def _search_pkl(self, query: Query) -> Outcome:
        side = _ask(self.pkl, query)
        if side.results is None:
            raise UnknownDomain(f"there is no domain {query.domain!r} in the PKL galleries")
        return Outcome("pkl_only", side.results, None, None, {"search_pkl": side.milliseconds})

    def _search_pgvector(self, query: Query) -> Outcome:
        try:
            side = self.breaker.call(lambda: self._ask_at_once(query) or self._wait(self._start(query)))
        except StoreUnavailable as failure:
            return _without_pgvector(query, _ask(self.pkl, query), failure, compared=False)
        if side.results is None:
            raise UnknownDomain(f"there is no domain {query.domain!r} in pgvector")
        return Outcome("pgvector_only", None, side.results, None, {"search_pgvector": side.milliseconds})

    def _search_both(self, query: Query, threshold: float | None) -> Outcome:
        pkl: Future[_Side] = Future()
        search_pkl = partial(self._settle_pkl, pkl, query)

        def both() -> _Side:
            if self._quick.get(query.domain):
                side = self._ask_at_once(query, search_pkl)
                if side is not None:
                    return side
            running = self._start(query)
            search_pkl()
            return self._wait(running)

        try:
            pgvector = self.breaker.call(both)
        except StoreUnavailable as failure:
            search_pkl()
            return _without_pgvector(query, pkl.result(), failure, compared=True)
        search_pkl()
        unreadable = pkl.exception()
        if isinstance(unreadable, GalleryError) and pgvector.results is not None:
            _log.error("the PKL gallery of domain %s cannot be used, pgvector answers: %s", query.domain, unreadable)
            return _without_pkl(pgvector, str(unreadable))
        approximate = self._indexed is not None and self._indexed.approximates(query.domain)
        return _compared(query, pkl.result(), pgvector, threshold if approximate else None)

    def _settle_pkl(self, pkl: Future[_Side], query: Query) -> None:
        if not pkl.done():
            start = time.thread_time()
            _settle(pkl, self.pkl, query)
            if pkl.exception() is None and pkl.result().results:
                self._quick[query.domain] = time.thread_time() - start < _QUICK_SECONDS

    def _ask_at_once(self, query: Query, meanwhile: Callable[[], None] | None = None) -> _Side | None:
        """pgvector's answer, asked in this thread; None when that might take long to begin."""
        store = self._prompt
        if store is None or not len(query.embeddings) or not self._slots.acquire(blocking=False):
            return None
        start = time.perf_counter()
        results: Results | None
        try:
            with _unavailable_when_it_fails():
                results = store.search_at_once(query, self.timeout, meanwhile)
        except UnknownDomain:
            return _Side(None, _since(start))
        finally:
            self._slots.release()
        return None if results is None else _Side(results, _since(start))

    def _start(self, query: Query) -> Future[_Side]:
        store = self.pgvector
        if store is None:
            raise StoreUnavailable("no pgvector store is open")
        if not self._slots.acquire(blocking=False):
            raise StoreUnavailable(f"{self.max_pending} pgvector searches are already waiting for an answer")
        future: Future[_Side] = Future()

        def work() -> None:
            _settle(future, store, query)
            self._slots.release()

        try:
            self._crew.do(work)
        except RuntimeError as error:
            self._slots.release()
            raise StoreUnavailable(f"no thread could be started for pgvector: {error}") from error
        return future

    def _wait(self, running: Future[_Side]) -> _Side:
        with _unavailable_when_it_fails():
            try:
                return running.result(self.timeout)
            except TimeoutError as error:
                raise StoreUnavailable(f"pgvector gave no answer within {self.timeout:g} s") from error


@contextmanager
def _unavailable_when_it_fails() -> Iterator[None]:
    try:
        yield
    except (StoreUnavailable, UnknownDomain):
        raise
    except Exception as error:
        _log.exception("pgvector failed in an unexpected way")
        raise StoreUnavailable(f"pgvector failed with {type(error).__name__}: {error}") from error


def _settle(future: Future[_Side], store: GalleryStore, query: Query) -> None:
    """Ask ``store`` here and now, and keep its answer or its failure in ``future``."""
    try:
        future.set_result(_ask(store, query))
    except Exception as error:
        future.set_exception(error)


def _ask(store: GalleryStore, query: Query) -> _Side:
    start = time.perf_counter()
    results: Results | None
    try:
        if len(query.embeddings):
            results = store.search(query.embeddings, query.domain, None, query.top_k)
        else:
            results = [] if query.domain in store.domains() else None
    except UnknownDomain:
        results = None
    return _Side(results, _since(start))


def _without_pgvector(query: Query, pkl: _Side, failure: StoreUnavailable, *, compared: bool) -> Outcome:
    _log.warning("pgvector search failed in domain %s: %s", query.domain, failure)
    if pkl.results is None:
        raise failure
    timing = {"search_pkl": pkl.milliseconds}
    return Outcome(PGVECTOR_FAILED, pkl.results, None, None, timing, compared, str(failure))


def _without_pkl(pgvector: _Side, why: str) -> Outcome:
    timing = {"search_pgvector": pgvector.milliseconds}
    return Outcome(PKL_FAILED, None, pgvector.results, None, timing, True, why)


def _compared(query: Query, pkl: _Side, pgvector: _Side, threshold: float | None) -> Outcome:
    if pkl.results is None and pgvector.results is None:
        raise UnknownDomain(f"there is no domain {query.domain!r}, neither in the PKL galleries nor in pgvector")
    if pkl.results is None:
        _log.warning("there is no PKL gallery of domain %s, pgvector answers", query.domain)
        return _without_pkl(pgvector, "there is no PKL gallery of the domain")
    start = time.perf_counter()
    ours = pkl.results
    theirs = pgvector.results if pgvector.results is not None else [[] for _ in ours]
    comparisons = [compare(mine, other, threshold) for mine, other in zip(ours, theirs, strict=True)]
    timing = {
        "search_pkl": pkl.milliseconds,
        "search_pgvector": pgvector.milliseconds,
        "compare": _since(start),
    }
    return Outcome("dual", ours, theirs, comparisons, timing, compared=True)


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1000
