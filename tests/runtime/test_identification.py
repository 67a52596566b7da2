"""Naming people and turning strangers away, by hand and against slow, obvious definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.identification import Searches, Split, search, split, supports
from runtime.verification import rate_at_most


def unit(*angles: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Points on the circle, angles in degrees."""
    radians = np.radians(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_by_hand() -> None:
    # Enrolled: a at 0, b at 90 degrees. The second b lies nearer to a; c and d are strangers.
    embeddings = unit(0, 90, 10, 40, 180, 5)
    labels = ["a", "b", "a", "b", "c", "d"]
    found = search(embeddings, labels, Split(np.array([0, 1]), np.array([2, 3]), np.array([4, 5])))
    assert found.ranks.tolist() == [1, 2]
    assert found.own == pytest.approx(1 - np.cos(np.radians([10, 50])), abs=1e-6)
    assert found.strangers == pytest.approx([1.0, 1 - np.cos(np.radians(5))], abs=1e-6)
    assert (found.rank(1), found.rank(2)) == (0.5, 1.0)
    assert (found.fnir(0.5), found.fnir(0.01), found.fpir(0.5), found.fpir(1.1)) == (0.5, 1.0, 0.5, 1.0)
    assert found.fpir(found.threshold(0.5)) == 0.5
    assert found.fpir(found.threshold(0.0)) == 0.0


def test_people_who_are_equally_near_do_not_flatter() -> None:
    embeddings = unit(0, 0, 0)
    found = search(embeddings, ["a", "b", "a"], Split(np.array([0, 1]), np.array([2]), np.array([1])))
    assert found.ranks.tolist() == [2]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(0, 5))
def test_a_split_gives_every_picture_one_part(counts: list[int], seed: int) -> None:
    labels = [f"p{person}" for person, count in enumerate(counts) for _ in range(count)]
    parts = split(labels, seed)
    several, single = sum(count > 1 for count in counts), sum(count == 1 for count in counts)
    if several + (single > 0) < 3:
        assert parts is None
        return
    assert parts is not None
    rows = np.concatenate([parts.gallery, parts.known, parts.unknown])
    assert sorted(rows) == list(range(len(labels)))
    enrolled = [labels[row] for row in parts.gallery]
    assert len(set(enrolled)) == len(enrolled) >= 2
    assert {labels[row] for row in parts.known} == set(enrolled)
    assert not {labels[row] for row in parts.unknown} & set(enrolled)
    assert len(parts.unknown)
    again = split(labels, seed)
    assert again is not None
    assert all(np.array_equal(getattr(parts, name), getattr(again, name)) for name in ("gallery", "known", "unknown"))


@given(st.lists(st.sampled_from("abcdef"), min_size=8, max_size=40), st.integers(0, 3))
def test_searches_are_what_a_loop_finds(labels: list[str], seed: int) -> None:
    parts = split(labels, seed)
    if parts is None:
        return
    embeddings = unit(*np.random.default_rng(seed).uniform(0, 360, len(labels)))
    found = search(embeddings, labels, parts)
    for place, probe in enumerate(parts.known):
        distances = {labels[row]: 1 - float(embeddings[probe] @ embeddings[row]) for row in parts.gallery}
        own = distances[labels[probe]]
        assert found.own[place] == pytest.approx(own, abs=1e-6)
        nearer = sum(distance < own - 1e-6 for distance in distances.values())
        assert nearer < found.ranks[place] <= sum(distance <= own + 1e-6 for distance in distances.values())
    for place, probe in enumerate(parts.unknown):
        nearest = min(1 - float(embeddings[probe] @ embeddings[row]) for row in parts.gallery)
        assert found.strangers[place] == pytest.approx(nearest, abs=1e-6)


def test_a_rate_needs_enough_probes() -> None:
    assert not supports(99, 0.01)
    assert supports(100, 0.01)


def test_the_upper_limit_of_a_rate() -> None:
    # Clopper-Pearson limits from tables of the F distribution; the rule of three for no error.
    assert rate_at_most(0, 1000) == pytest.approx(0.002991, abs=1e-6)
    assert rate_at_most(3, 1000) == pytest.approx(0.007735, abs=2e-6)
    assert rate_at_most(1, 10) == pytest.approx(0.394163, abs=1e-6)
    assert rate_at_most(10, 10) == 1.0
    assert rate_at_most(30_000, 30_000_000) == pytest.approx(1e-3, rel=0.02)


def test_fnir_and_fpir_move_apart_as_the_threshold_rises() -> None:
    random = np.random.default_rng(1)
    found = Searches(9, random.integers(1, 3, 50), random.uniform(0, 1, 50), random.uniform(0, 1, 50))
    fpir, fnir = found.curve()
    assert np.all(np.diff(fpir) > 0)
    assert fpir[-1] == 1
    for rate, lowest in zip(fpir, fnir, strict=True):
        limits = [limit for limit in [-1.0, *found.strangers, *found.own] if found.fpir(limit) == rate]
        assert lowest == pytest.approx(min(found.fnir(limit) for limit in limits))
    thresholds = np.linspace(0, 1, 20)
    assert np.all(np.diff([found.fnir(value) for value in thresholds]) <= 0)
    assert np.all(np.diff([found.fpir(value) for value in thresholds]) >= 0)
