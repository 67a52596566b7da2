"""Verification figures against hand-computed values and slow, obvious definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from runtime.verification import (
    MAX_DISTANCE,
    Distances,
    area_under,
    best_threshold,
    equal_error_rate,
    fold_accuracy,
    impostor_comparisons,
    largest_threshold,
    nearest_impostors,
    point_at,
    point_at_far,
    roc,
)

# Few different values make ties common.
distances = st.one_of(
    arrays(np.float64, st.integers(1, 12), elements=st.sampled_from([0.0, 0.1, 0.2, 0.30000000000000004, 0.3, 1.9])),
    arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 2)),
)
GENUINE = np.array([0.1, 0.2, 0.3, 0.6])
IMPOSTOR = np.array([0.4, 0.7, 0.8, 0.9])


def brute_rates(genuine: Distances, impostor: Distances, threshold: float) -> tuple[float, float]:
    far = sum(d <= threshold for d in impostor) / len(impostor)
    return far, sum(d <= threshold for d in genuine) / len(genuine)


def every_threshold(*values: Distances) -> list[float]:
    return [-1.0, *sorted({float(v) for array in values for v in array})]


def test_by_hand() -> None:
    curve = roc(GENUINE, IMPOSTOR)
    assert curve.thresholds.tolist() == [-np.inf, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9]
    assert curve.far.tolist() == [0, 0, 0, 0, 0.25, 0.25, 0.5, 0.75, 1]
    assert curve.tar.tolist() == [0, 0.25, 0.5, 0.75, 0.75, 1, 1, 1, 1]
    # 15 of 16 pairs of one genuine and one impostor distance are in the right order.
    assert area_under(curve) == 15 / 16
    assert equal_error_rate(curve).far == 0.25
    assert point_at_far(GENUINE, IMPOSTOR, 0.0).tar == 0.75
    assert point_at_far(GENUINE, IMPOSTOR, 0.25).tar == 1.0
    assert point_at_far(GENUINE, IMPOSTOR, 0.25).threshold == pytest.approx(0.7)
    assert (point_at(GENUINE, IMPOSTOR, 0.4).far, point_at(GENUINE, IMPOSTOR, 0.4).tar) == (0.25, 0.75)


def test_the_equal_error_rate_lies_between_two_points_of_the_curve() -> None:
    # False accepts rise from 0 to 1/2 where false rejects fall from 1 to 1/3: -1 + t * (1 + 1/6) = 0 at t = 6/7.
    curve = roc(np.array([0.2, 0.2, 0.5]), np.array([0.2, 0.9]))
    assert equal_error_rate(curve).far == pytest.approx(0.5 * 6 / 7)


def test_perfect_and_useless_distances() -> None:
    near, far = np.full(5, 0.2), np.full(7, 0.8)
    perfect, useless, inverted = roc(near, far), roc(near, np.full(7, 0.2)), roc(far, near)
    assert (area_under(perfect), equal_error_rate(perfect).far) == (1.0, 0.0)
    assert (area_under(useless), equal_error_rate(useless).far) == (0.5, 0.5)
    assert (area_under(inverted), equal_error_rate(inverted).far) == (0.0, 1.0)


@given(distances, distances)
def test_the_curve_is_what_counting_gives(genuine: Distances, impostor: Distances) -> None:
    curve = roc(genuine, impostor)
    expected = [brute_rates(genuine, impostor, t) for t in every_threshold(genuine, impostor)]
    assert list(zip(curve.far, curve.tar, strict=True)) == expected


@given(distances, distances)
def test_the_area_is_the_share_of_rightly_ordered_pairs(genuine: Distances, impostor: Distances) -> None:
    right = sum((g < i) + 0.5 * (g == i) for g, i in itertools.product(genuine, impostor))
    assert area_under(roc(genuine, impostor)) == pytest.approx(right / (len(genuine) * len(impostor)))


@given(distances, distances)
def test_the_equal_error_rate_is_where_the_polylines_cross(genuine: Distances, impostor: Distances) -> None:
    rates = [brute_rates(genuine, impostor, t) for t in every_threshold(genuine, impostor)]
    rate = equal_error_rate(roc(genuine, impostor)).far
    crossings = []
    for (far0, tar0), (far1, tar1) in itertools.pairwise(rates):
        low, high = far0 + tar0 - 1, far1 + tar1 - 1
        if low <= 0 <= high and low < high:
            crossings.append(far0 + (far1 - far0) * -low / (high - low))
    assert any(rate == pytest.approx(crossing, abs=1e-12) for crossing in crossings)
    assert 0 <= rate <= 1


@given(distances, distances, st.floats(0, 1))
def test_a_point_at_a_rate_accepts_as_many_genuine_as_any_threshold_allowed(
    genuine: Distances, impostor: Distances, wanted: float
) -> None:
    point = point_at_far(genuine, impostor, wanted)
    assert point.far <= wanted + 1e-9
    allowed = [rates for t in every_threshold(genuine, impostor) if (rates := brute_rates(genuine, impostor, t))]
    assert point.tar == max(tar for far, tar in allowed if far <= wanted + 1e-9 / len(impostor))


@given(distances, st.floats(0, 1))
def test_the_largest_threshold_cannot_be_larger(impostor: Distances, wanted: float) -> None:
    threshold = largest_threshold(np.sort(impostor), len(impostor), wanted)
    assert np.mean(impostor <= threshold) <= wanted + 1e-9
    larger = np.nextafter(threshold, np.inf)
    assert threshold == MAX_DISTANCE or np.mean(impostor <= larger) > wanted


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.5]), st.booleans()), min_size=1, max_size=15))
def test_the_best_threshold_beats_every_other(pairs: list[tuple[float, bool]]) -> None:
    values, same = np.array([d for d, _ in pairs]), np.array([s for _, s in pairs])
    threshold, accuracy = best_threshold(values, same)
    assert np.mean((values <= threshold) == same) == pytest.approx(accuracy)
    for other in every_threshold(values):
        assert np.mean((values <= other) == same) <= accuracy + 1e-12


def test_the_best_threshold_lies_half_way_and_never_on_the_wrong_side() -> None:
    assert best_threshold(np.array([0.2, 0.6]), np.array([True, False])) == (pytest.approx(0.4), 1.0)
    low = 0.3
    high = float(np.nextafter(low, 1))
    assert best_threshold(np.array([low, high]), np.array([True, False])) == (low, 1.0)


def test_folds_are_judged_by_the_others() -> None:
    values = np.array([0.1, 0.5, 0.2, 0.6, 0.8, 0.9])
    same = np.array([True, False, True, False, True, False])
    # The first two folds leave thresholds of 0.3 or 0.35 to each other; the last has a genuine pair at 0.8.
    result = fold_accuracy(values, same, np.array([0, 0, 1, 1, 2, 2]))
    assert result.accuracies == (1.0, 1.0, 0.5)
    assert result.mean == pytest.approx(5 / 6)
    assert result.deviation == pytest.approx(np.sqrt(((1 / 6) ** 2 * 2 + (1 / 3) ** 2) / 2))
    assert result.standard_error == pytest.approx(result.deviation / np.sqrt(3))
    assert result.thresholds[2] == pytest.approx(0.35)


def test_one_fold_is_judged_by_itself() -> None:
    result = fold_accuracy(np.array([0.1, 0.5]), np.array([True, False]), np.array([0, 0]))
    assert (result.accuracies, result.deviation) == ((1.0,), 0.0)


@given(
    st.integers(0, 2**32 - 1), st.lists(st.sampled_from(["amy", "bob", "eve", "Žan"]), max_size=20), st.integers(0, 30)
)
def test_nearest_impostors_are_those_of_all_pairs(seed: int, labels: list[str], count: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((len(labels), 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) if len(rows) else 1
    every = sorted(
        1 - float(rows[i] @ rows[j]) for i, j in itertools.combinations(range(len(labels)), 2) if labels[i] != labels[j]
    )
    assert impostor_comparisons(labels) == len(every)
    assert nearest_impostors(rows, labels, count) == pytest.approx(every[:count], abs=1e-6)


def test_nearest_impostors_over_several_blocks() -> None:
    rows = np.random.default_rng(3).standard_normal((1300, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = [f"p{index % 400}" for index in range(1300)]
    full = 1 - rows.astype(np.float64) @ rows.T
    left, right = np.triu_indices(1300, 1)
    different = left % 400 != right % 400
    expected = np.sort(full[left, right][different])
    assert impostor_comparisons(labels) == len(expected)
    assert nearest_impostors(rows, labels, 1000) == pytest.approx(expected[:1000], abs=1e-6)
