"""A domain that pgvector searches through an index may leave PKL when it answers alike, and not when it does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from psycopg.conninfo import make_conninfo
from tiny import make_card, make_clusters, unit_rows

from matchers.audit import AuditLog, ModeChange, now
from matchers.base import FloatArray, GalleryFace, Match
from matchers.breaker import CircuitBreaker
from matchers.compare import Comparison, compare
from matchers.dual import Searcher
from matchers.gallery import PklStore
from matchers.gates import GateResult, Gates
from matchers.pgvector import PgvectorStore
from matchers.recording.figures import recorded
from matchers.recording.recorder import Recorder
from matchers.recording.report import Judge, count_differences
from matchers.service import Stores

DOMAIN = "large"
# Of 512 numbers it would have cells, which are all looked through in a domain of this size.
DIMENSION = 500
STRANGERS = 150
THRESHOLD = 0.6
ALIKE = Comparison(top1_match=True, top5_overlap=1.0, max_distance_delta=pytest.approx(0, abs=1e-5))


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Both stores of a domain.

    Attributes:
        faces: what both held at the beginning, five pictures of each person.
        known: one more picture of some people, (n, d) float32, unit rows.
        strangers: faces that are far from all.
    """

    stores: Stores
    searcher: Searcher
    faces: list[GalleryFace]
    known: FloatArray
    strangers: FloatArray

    def ask(self, queries: FloatArray, threshold: float | None = THRESHOLD) -> list[Comparison]:
        """Search all in both stores, record it, and give the comparisons."""
        recorder = Recorder(self.stores, "wide")
        comparisons = []
        for query in queries:
            outcome = self.searcher.search(query[None], DOMAIN, "dual", 10, threshold)
            assert outcome.mode == "dual"
            recorder.record(outcome, DOMAIN, THRESHOLD, time.time())
            comparisons += outcome.comparisons or []
        recorder.close()
        return comparisons

    @property
    def judge(self) -> Judge:
        """What decides whether the domain may leave PKL."""
        audit = AuditLog(self.stores.data_dir / "audit")
        return Judge(self.stores, audit, "wide", Gates(), lambda domain: count_differences(self.stores, domain))

    def closed(self) -> dict[str, GateResult]:
        """The gates that do not hold."""
        return {gate.name: gate for gate in self.judge.look(DOMAIN) if not gate.holds}

    def reasons(self) -> dict[str, int]:
        """How many of the recorded disagreements have which reason."""
        assert self.stores.pgvector is not None
        return dict(recorded(self.stores.pgvector.database, self.judge.window(DOMAIN)).summary.reasons)


@contextmanager
def made(database: str, folder: Path, people: int) -> Iterator[World]:
    """A domain that pgvector searches through a graph."""
    card = replace(make_card("wide", DIMENSION), threshold=THRESHOLD)
    faces, known = make_clusters(people, 60, DIMENSION)
    pkl = PklStore(folder / "galleries", card, "none")
    pkl.apply(DOMAIN, faces, ())
    with PgvectorStore(make_conninfo(database, options="-c enable_seqscan=off"), card, 20.0, exact_limit=500) as store:
        store.apply(DOMAIN, faces, ())
        assert store.build_indexes() == [DOMAIN]
        searcher = Searcher(pkl, store, CircuitBreaker(), 20.0)
        yield World(Stores(pkl, store), searcher, faces, known, unit_rows(STRANGERS, DIMENSION, seed=99))


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    with made(database, tmp_path, 200) as world:
        yield world


def test_what_an_index_misses_beyond_the_threshold_holds_nothing_up(database: str, tmp_path: Path) -> None:
    with made(database, tmp_path, 1000) as world:
        strictly = world.ask(world.strangers, threshold=None)
        assert np.mean([comparison.top5_overlap for comparison in strictly]) < Gates().min_overlap
        assert "top5_overlap" in world.closed()

        world.judge.audit.append(DOMAIN, ModeChange(now(), "test", "dual", "dual"))
        assert world.ask(np.concatenate([world.known, world.strangers])) == [ALIKE] * (len(world.known) + STRANGERS)
        assert world.closed() == {}
        assert world.reasons() == {}


def test_a_picture_that_pgvector_lacks_is_seen_when_its_person_is(world: World) -> None:
    nearest = world.stores.pkl.search(world.known[:1], DOMAIN, None, 1)[0][0]
    assert world.stores.pgvector is not None
    world.stores.pgvector.apply(DOMAIN, (), [nearest.source])
    assert world.ask(world.known[:1]) == [replace(ALIKE, top5_overlap=0.8)]
    assert world.reasons() == {"missing_in_pgvector": 1}
    assert world.closed()["differences"].figure == 1
    world.ask(np.repeat(world.known[:1], 50, axis=0))
    assert world.closed().keys() == {"top5_overlap", "differences"}


def test_a_person_whom_pgvector_lacks_closes_the_gates(world: World) -> None:
    person = world.stores.pkl.search(world.known[:1], DOMAIN, None, 1)[0][0].person
    assert world.stores.pgvector is not None
    gone = [face.source for face in world.faces if face.person == person]
    world.stores.pgvector.apply(DOMAIN, (), gone)
    comparisons = world.ask(np.concatenate([world.known, world.strangers]))
    assert [comparison.top1_match for comparison in comparisons[: len(world.known)]] == [False] + [True] * 59
    assert comparisons[0].top5_overlap == 0
    assert world.reasons().keys() == {"missing_in_pgvector"}
    assert world.closed()["differences"].figure == len(gone)


def test_other_vectors_are_seen_whoever_is_asked_for(world: World) -> None:
    others = [*world.faces[5:], *world.faces[:5]]
    wrong = [replace(face, embedding=other.embedding) for face, other in zip(world.faces, others, strict=True)]
    world.stores.pkl.apply(DOMAIN, wrong, ())
    comparisons = world.ask(world.strangers)
    assert np.mean([comparison.top1_match for comparison in comparisons]) < 0.1
    assert world.reasons() == {"other_embedding": STRANGERS}
    assert world.closed().keys() == {"top1_rate", "top5_overlap", "differences"}
    assert not any(comparison.top1_match for comparison in world.ask(world.known))


def test_an_exact_search_has_to_find_everything(database: str, tmp_path: Path) -> None:
    card = replace(make_card("wide", DIMENSION), threshold=THRESHOLD)
    faces, _ = make_clusters(50, 1, DIMENSION)
    pkl = PklStore(tmp_path / "galleries", card, "none")
    pkl.apply(DOMAIN, faces, ())
    stranger = unit_rows(1, DIMENSION, seed=99)
    with PgvectorStore(database, card, 20.0) as store:
        store.apply(DOMAIN, faces, [])
        searcher = Searcher(pkl, store, CircuitBreaker(), 20.0)
        assert searcher.search(stranger, DOMAIN, "dual", 10, THRESHOLD).comparisons == [ALIKE]
        nearest: Match = pkl.search(stranger, DOMAIN, None, 1)[0][0]
        assert nearest.distance > THRESHOLD
        store.apply(DOMAIN, (), [nearest.source])
        found = searcher.search(stranger, DOMAIN, "dual", 10, THRESHOLD)
    assert found.pkl is not None
    assert found.pgvector is not None
    assert found.comparisons == [compare(found.pkl[0], found.pgvector[0])]
    assert found.comparisons[0].top5_overlap == pytest.approx(0.8)
