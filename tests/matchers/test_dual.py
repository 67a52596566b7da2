"""Searching two stores at once, and surviving one of them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psycopg
import pytest

from matchers.base import GalleryFace, Query
from matchers.breaker import CircuitBreaker
from matchers.dual import PGVECTOR_FAILED, PKL_FAILED, Outcome, Searcher
from matchers.embedded import EmbeddedPostgres
from matchers.errors import GalleryError, StoreUnavailable, UnknownDomain
from matchers.gallery import PklStore
from matchers.pgvector import PgvectorStore
from models.card import ModelCard
from models.settings import Mode
from runtime.faces import FloatArray

DIMENSION = 16
DOMAIN = "office"
DEAD = "host=127.0.0.1 port=1 user=nobody dbname=nothing"
MODES: tuple[Mode, ...] = ("pkl_only", "pgvector_only", "dual")


def vectors(count: int, seed: int = 0) -> FloatArray:
    rows = np.random.default_rng(seed).normal(size=(count, DIMENSION))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


NOBODY = np.empty((0, DIMENSION), np.float32)
ENROLLED = vectors(12)


def enrolled_faces() -> list[GalleryFace]:
    return [
        GalleryFace(f"person-{index // 2}", f"person-{index // 2}/{index}.jpg", f"{index:040x}", row, (0, 0, 10, 10))
        for index, row in enumerate(ENROLLED)
    ]


@pytest.fixture
def embedder(card: Callable[[str, int], ModelCard]) -> ModelCard:
    return card("dual-test", DIMENSION)


@pytest.fixture
def pkl(tmp_path: Path, embedder: ModelCard) -> PklStore:
    """A PKL gallery that holds the domain."""
    store = PklStore(tmp_path / "galleries", embedder, "retinaface")
    store.apply(DOMAIN, enrolled_faces(), ())
    return store


@pytest.fixture
def filled(pkl: PklStore, database: str, embedder: ModelCard) -> Iterator[Searcher]:
    with PgvectorStore(database, embedder, 10.0) as pgvector:
        pgvector.apply(DOMAIN, enrolled_faces(), ())
        yield Searcher(pkl, pgvector, CircuitBreaker(), timeout=10.0)


@pytest.fixture
def without_database(pkl: PklStore, embedder: ModelCard) -> Iterator[Searcher]:
    with PgvectorStore(DEAD, embedder, 10.0) as store:
        yield Searcher(pkl, store, CircuitBreaker(), timeout=10.0)


def nearest(outcome: Outcome) -> list[str]:
    results = outcome.pkl if outcome.pkl is not None else outcome.pgvector
    assert results is not None
    return [matches[0].source for matches in results]


def test_both_stores_answer_alike(filled: Searcher) -> None:
    outcome = filled.search(ENROLLED[:3], DOMAIN, "dual", 10)
    assert outcome.mode == "dual"
    assert nearest(outcome) == ["person-0/0.jpg", "person-0/1.jpg", "person-1/2.jpg"]
    assert outcome.comparisons is not None
    for comparison in outcome.comparisons:
        assert comparison.top1_match
        assert comparison.top5_overlap == 1.0
        assert comparison.max_distance_delta < 1e-5
    assert outcome.timing_ms.keys() == {"search_pkl", "search_pgvector", "compare"}


@pytest.mark.parametrize("mode", ["pkl_only", "pgvector_only"])
def test_a_single_mode_asks_one_store(filled: Searcher, mode: Mode) -> None:
    outcome = filled.search(ENROLLED[:2], DOMAIN, mode, 3)
    assert outcome.mode == mode
    assert nearest(outcome) == ["person-0/0.jpg", "person-0/1.jpg"]
    assert (outcome.pkl is None) == (mode == "pgvector_only")
    assert (outcome.pgvector is None) == (mode == "pkl_only")
    assert outcome.comparisons is None


def test_what_a_store_says_at_once_is_what_it_says(filled: Searcher) -> None:
    store = filled.pgvector
    assert isinstance(store, PgvectorStore)
    expected = store.search(ENROLLED[:3], DOMAIN, None, 4)
    assert store.search_at_once(Query(ENROLLED[:3], DOMAIN, 4), 10.0) == expected
    with ExitStack() as held:
        while store.search_at_once(Query(ENROLLED[:3], DOMAIN, 4), 10.0) is not None:
            assert store.connections()["open"] <= 8
            held.enter_context(store.database.connection())
    assert filled.search(ENROLLED[:3], DOMAIN, "dual", 4).pgvector == expected


def test_a_connection_that_the_server_has_closed_is_not_used(filled: Searcher, database: str) -> None:
    store = filled.pgvector
    assert isinstance(store, PgvectorStore)
    for mode in ("dual", "pgvector_only"):
        assert filled.search(ENROLLED[:1], DOMAIN, mode, 3).mode == mode
        with store.database.connection() as connection, psycopg.connect(database, autocommit=True) as killer:
            pid = connection.info.backend_pid
            killer.execute("SELECT pg_terminate_backend(%s, 20000)", (pid,))
        assert filled.search(ENROLLED[:1], DOMAIN, mode, 3).mode == mode


@pytest.mark.parametrize("mode", MODES)
def test_top_k_bounds_every_list(filled: Searcher, mode: Mode) -> None:
    outcome = filled.search(ENROLLED[:1], DOMAIN, mode, 4)
    for results in (outcome.pkl, outcome.pgvector):
        assert results is None or [len(matches) for matches in results] == [4]


@pytest.mark.parametrize("mode", MODES)
def test_a_domain_that_no_store_has_is_unknown(filled: Searcher, mode: Mode) -> None:
    for embeddings in (ENROLLED[:1], NOBODY):
        with pytest.raises(UnknownDomain):
            filled.search(embeddings, "nowhere", mode, 5)


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_without_faces_has_no_results(filled: Searcher, mode: Mode) -> None:
    outcome = filled.search(NOBODY, DOMAIN, mode, 5)
    assert outcome.mode == mode
    assert [results for results in (outcome.pkl, outcome.pgvector, outcome.comparisons) if results] == []


def test_a_domain_that_pgvector_lacks_counts_as_empty_there(filled: Searcher) -> None:
    assert filled.pgvector is not None
    filled.pgvector.drop(DOMAIN)
    outcome = filled.search(ENROLLED[:1], DOMAIN, "dual", 5)
    assert outcome.mode == "dual"
    assert nearest(outcome) == ["person-0/0.jpg"]
    assert outcome.pgvector == [[]]
    assert outcome.comparisons is not None
    assert outcome.comparisons[0].top1_match is False
    assert outcome.comparisons[0].top5_overlap == 0.0


def test_pgvector_answers_for_a_pkl_gallery_that_is_gone(filled: Searcher, caplog: pytest.LogCaptureFixture) -> None:
    filled.pkl.drop(DOMAIN)
    outcome = filled.search(ENROLLED[:1], DOMAIN, "dual", 5)
    assert outcome.mode == PKL_FAILED
    assert (outcome.pkl, outcome.comparisons) == (None, None)
    assert outcome.pgvector is not None
    assert outcome.pgvector[0][0].source == "person-0/0.jpg"
    assert "no PKL gallery" in caplog.text


def test_many_threads_get_what_one_gets(filled: Searcher) -> None:
    queries = [vectors(1 + seed % 4, seed) for seed in range(200)]
    one_by_one = [filled.search(query, DOMAIN, "dual", 5) for query in queries]
    with ThreadPoolExecutor(32) as pool:
        at_once = list(pool.map(lambda query: filled.search(query, DOMAIN, "dual", 5), queries))
    assert {outcome.mode for outcome in at_once} == {"dual"}
    assert [outcome.pkl for outcome in at_once] == [outcome.pkl for outcome in one_by_one]
    assert [outcome.pgvector for outcome in at_once] == [outcome.pgvector for outcome in one_by_one]


@pytest.mark.parametrize("mode", ["pgvector_only", "dual"])
def test_pkl_answers_when_the_database_is_down_and_the_log_says_why(
    without_database: Searcher, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "matchers.dual"):
        outcome = without_database.search(ENROLLED[:2], DOMAIN, mode, 5)
    assert outcome.mode == PGVECTOR_FAILED
    assert nearest(outcome) == ["person-0/0.jpg", "person-0/1.jpg"]
    assert (outcome.pgvector, outcome.comparisons) == (None, None)
    assert DOMAIN in caplog.text
    assert "127.0.0.1" in caplog.text


@pytest.mark.parametrize("mode", ["pgvector_only", "dual"])
@pytest.mark.parametrize("embeddings", [ENROLLED[:1], NOBODY], ids=["a face", "no face"])
def test_a_domain_unknown_to_pkl_cannot_be_answered_without_the_database(
    without_database: Searcher, mode: Mode, embeddings: FloatArray
) -> None:
    with pytest.raises(StoreUnavailable):
        without_database.search(embeddings, "nowhere", mode, 5)


@pytest.mark.parametrize("mode", ["pgvector_only", "dual"])
def test_a_store_that_was_never_opened_counts_as_failed(pkl: PklStore, mode: Mode) -> None:
    outcome = Searcher(pkl, None, CircuitBreaker(), 1.0).search(ENROLLED[:1], DOMAIN, mode, 5)
    assert outcome.mode == PGVECTOR_FAILED
    assert nearest(outcome) == ["person-0/0.jpg"]


def test_embeddings_that_do_not_fit_the_database_do_not_stop_pkl(
    pkl: PklStore, database: str, card: Callable[[str, int], ModelCard], caplog: pytest.LogCaptureFixture
) -> None:
    with PgvectorStore(database, card("dual-wide", 99), 10.0) as store:
        store.apply(DOMAIN, [], ())
        outcome = Searcher(pkl, store, CircuitBreaker(), 10.0).search(ENROLLED[:1], DOMAIN, "dual", 5)
    assert outcome.mode == PGVECTOR_FAILED
    assert nearest(outcome) == ["person-0/0.jpg"]
    assert "99" in caplog.text


def test_a_damaged_pkl_gallery_is_told_and_not_laid_on_the_database(
    filled: Searcher, pkl: PklStore, embedder: ModelCard, caplog: pytest.LogCaptureFixture
) -> None:
    pkl.path(DOMAIN).write_bytes(b"this is no pickle")
    started_anew = PklStore(pkl.root, embedder, "retinaface")
    searcher = Searcher(started_anew, filled.pgvector, CircuitBreaker(), timeout=10.0)
    for _ in range(5):
        outcome = searcher.search(ENROLLED[:1], DOMAIN, "dual", 5)
        assert outcome.mode == PKL_FAILED
        assert outcome.pgvector is not None
        assert outcome.pgvector[0][0].source == "person-0/0.jpg"
        with pytest.raises(GalleryError):
            searcher.search(ENROLLED[:1], DOMAIN, "pkl_only", 5)
    assert searcher.breaker.state == "closed"
    assert "cannot be used, pgvector answers" in caplog.text


def children_of(parent: int) -> list[int]:
    # proc(5): the fourth field of /proc/PID/stat, the second after the name in brackets, is the parent.
    stats = {int(path.parent.name): path.read_text("utf-8") for path in Path("/proc").glob("[0-9]*/stat")}
    return [pid for pid, stat in stats.items() if int(stat.rpartition(")")[2].split()[1]) == parent]


@contextmanager
def stalled(server: EmbeddedPostgres) -> Iterator[None]:
    """The server and its children stand still, connections stay open: what a dying machine looks like."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    processes = [server.pid, *children_of(server.pid)]
    for process in processes[1:]:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the server's processes in /proc")
def test_a_database_that_hangs_costs_the_timeout_then_nothing_until_it_is_back(
    pkl: PklStore, embedder: ModelCard, tmp_path: Path, furnished: Callable[[Path], Path]
) -> None:
    with EmbeddedPostgres(furnished(tmp_path)) as server, PgvectorStore(server.start(), embedder, 60.0) as store:
        store.apply(DOMAIN, enrolled_faces(), ())
        now = 0.0
        searcher = Searcher(pkl, store, CircuitBreaker(failures=2, cooldown=0.3, clock=lambda: now), timeout=0.5)
        assert searcher.search(ENROLLED[:1], DOMAIN, "dual", 5).mode == "dual"
        waits = []
        with stalled(server):
            for _ in range(3):
                start = time.monotonic()
                outcome = searcher.search(ENROLLED[:1], DOMAIN, "dual", 5)
                waits.append(time.monotonic() - start)
                assert outcome.mode == PGVECTOR_FAILED
                assert nearest(outcome) == ["person-0/0.jpg"]
        assert 0.5 <= waits[0] < 30
        assert 0.5 <= waits[1] < 30
        assert waits[2] < 0.5
        now = 1.0
        deadline = time.monotonic() + 20
        while searcher.search(ENROLLED[:1], DOMAIN, "dual", 5).mode != "dual":
            assert time.monotonic() < deadline, "the database is back and is not asked"
            time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the server's processes in /proc")
def test_hanging_searches_are_bounded(
    pkl: PklStore,
    embedder: ModelCard,
    tmp_path: Path,
    furnished: Callable[[Path], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with EmbeddedPostgres(furnished(tmp_path)) as server, PgvectorStore(server.start(), embedder, 60.0) as store:
        store.apply(DOMAIN, enrolled_faces(), ())
        searcher = Searcher(pkl, store, CircuitBreaker(failures=1000), timeout=1.0, max_pending=2)
        with stalled(server), ThreadPoolExecutor(6) as pool:
            outcomes = list(pool.map(lambda _: searcher.search(ENROLLED[:1], DOMAIN, "dual", 5), range(6)))
            assert {outcome.mode for outcome in outcomes} == {PGVECTOR_FAILED}
            assert [nearest(outcome) for outcome in outcomes] == [["person-0/0.jpg"]] * 6
        assert caplog.text.count("2 pgvector searches are already waiting") == 4
