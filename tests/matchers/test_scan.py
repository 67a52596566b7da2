from __future__ import annotations

import numpy as np
import pytest
import simsimd
from hypothesis import given, settings
from hypothesis import strategies as st

from matchers.base import FloatArray
from matchers.scan import encode, nearest


def unit(seed: int, count: int, dimension: int) -> FloatArray:
    rows = np.random.default_rng(seed).standard_normal((count, dimension))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def brute_force(query: FloatArray, rows: FloatArray, count: int) -> tuple[list[int], list[float]]:
    distances = 1 - (rows.astype(np.float64) * query).sum(axis=1)
    order = np.lexsort((np.arange(len(rows)), distances))[:count]
    return order.tolist(), distances[order].clip(0, 2).tolist()


def assert_exact(queries: FloatArray, rows: FloatArray, count: int) -> None:
    found = nearest(queries, rows, encode(rows), count)
    assert len(found) == len(queries)
    for query, (indexes, distances) in zip(queries, found, strict=True):
        assert (indexes.tolist(), distances.tolist()) == brute_force(query, rows, count)


@pytest.mark.parametrize(("count", "dimension"), [(1, 3), (9, 64), (5000, 128), (20_000, 512)])
def test_the_nearest_are_those_of_brute_force(count: int, dimension: int) -> None:
    rows = unit(0, count, dimension)
    assert_exact(np.concatenate([unit(1, 9, dimension), rows[:3]]), rows, 10)


def test_faces_that_differ_less_than_their_codes_do_are_told_apart() -> None:
    rows = unit(0, 1, 128) + 1e-4 * unit(1, 20_000, 128)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    queries = np.concatenate([rows[:2], unit(2, 2, 128)])
    assert_exact(queries, rows, 10)
    assert len({encode(rows).values.tobytes()}) == 1


def test_copies_come_in_the_order_of_their_numbers_however_many_there_are() -> None:
    rows = np.repeat(unit(0, 3, 64), 5000, axis=0)
    assert_exact(np.concatenate([rows[5000:5001], unit(1, 1, 64)]), rows, 10)
    assert_exact(unit(1, 1, 64), rows, 7000)


def test_rows_that_eight_bits_describe_badly_cost_time_not_truth() -> None:
    rows = unit(0, 5000, 64) ** 9
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[7] = 0
    rows[7, 3] = 1
    assert_exact(np.concatenate([rows[:8], unit(1, 3, 64)]), rows, 10)


def test_rows_of_any_length_are_searched_exactly() -> None:
    rows = unit(0, 3000, 64) * np.random.default_rng(1).uniform(0.01, 50, (3000, 1)).astype(np.float32)
    rows[5] = 0
    queries = unit(2, 4, 64)
    for query, (indexes, _) in zip(queries, nearest(queries, rows, encode(rows), 10), strict=True):
        assert indexes.tolist() == brute_force(query, rows, 10)[0]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 300),
    dimension=st.integers(1, 40),
    wanted=st.integers(1, 320),
    coarse=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_galleries_full_of_ties_are_searched_exactly(
    count: int, dimension: int, wanted: int, coarse: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    rows = random.integers(-coarse, coarse + 1, (count, dimension)).astype(np.float32)
    rows[~rows.any(axis=1), 0] = 1
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert_exact(rows[random.integers(0, count, 3)], rows, wanted)


def test_the_bounds_hold() -> None:
    rows, queries = unit(0, 2000, 128), unit(1, 5, 128)
    codes, coded = encode(rows), encode(queries)
    told = (coded.values.astype(int) @ codes.values.T.astype(int)) * codes.scales * coded.scales[:, None]
    off = np.abs(told - queries.astype(float) @ rows.T.astype(float))
    assert (off <= codes.errors + coded.errors[:, None] * codes.longest + 1e-6).all()
    assert off.max() > 1e-4


def test_products_of_codes_are_exact_on_this_machine() -> None:
    codes = np.random.default_rng(0).integers(-127, 128, (500, 1021)).astype(np.int8)
    codes[0] = 127
    codes[1] = -127
    products = np.asarray(simsimd.cdist(codes[:4], codes, "inner", out_dtype="float32"))
    assert np.array_equal(products, codes[:4].astype(int) @ codes.T.astype(int))
