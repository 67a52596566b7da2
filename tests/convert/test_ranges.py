"""Ranges of int8 scales: what is seen, and what is cut off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from convert.ranges import BINS, LEVELS, METHODS, Histogram, Range, histograms


def histogram(values: np.ndarray) -> Histogram:
    low, high = float(values.min()), float(values.max())
    places = ((values - low) * (BINS / max(high - low, 1e-12))).astype(np.int64)
    counts = np.bincount(np.minimum(places, BINS - 1), minlength=BINS)
    return Histogram(low, high, counts.astype(np.float64))


def error(values: np.ndarray, span: Range) -> float:
    """Mean squared error of ``values`` on the scale that spans ``span``."""
    step = (span.high - span.low) / (LEVELS - 1)
    kept = np.clip(np.rint((values - span.low) / step), 0, LEVELS - 1) * step + span.low
    return float(np.mean((kept - values) ** 2))


@pytest.fixture(scope="module")
def outlier() -> np.ndarray:
    """Numbers like those after a PReLU, and one far away."""
    numbers = np.random.default_rng(0).normal(size=200_000)
    return np.append(np.where(numbers < 0, 0.2 * numbers, numbers), 100)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=30)
@given(low=st.floats(-1e3, 1e3), width=st.floats(0, 1e3), seed=st.integers(0, 100))
def test_a_range_holds_zero_and_nothing_that_was_never_seen(name: str, low: float, width: float, seed: int) -> None:
    values = low + width * np.random.default_rng(seed).random(500)
    span = METHODS[name](histogram(values))
    assert min(values.min(), 0) - 1e-6 * (1 + abs(low)) <= span.low <= 0
    assert 0 <= span.high <= max(values.max(), 0) + 1e-6 * (1 + abs(low) + width)


def test_min_max_keeps_an_outlier(outlier: np.ndarray) -> None:
    assert METHODS["min-max"](histogram(outlier)).high == 100


@pytest.mark.parametrize("name", ["percentile 99.999", "percentile 99.99", "entropy", "squared error"])
def test_the_others_cut_an_outlier_off_for_the_sake_of_the_rest(name: str, outlier: np.ndarray) -> None:
    whole, cut = (METHODS[method](histogram(outlier)) for method in ("min-max", name))
    assert cut.high < whole.high
    assert error(outlier[:-1], cut) < error(outlier[:-1], whole)


def test_the_smallest_squared_error_is_found() -> None:
    """On Laplace's distribution the best clipping of 8 bits lies near 9.9 times its scale (Banner et al. 2019)."""
    values = np.random.default_rng(1).laplace(size=400_000)
    found = METHODS["squared error"](histogram(values))
    errors = [error(values, Range(found.low * share, found.high * share)) for share in (0.7, 1.0, 1.3)]
    assert errors[1] < min(errors[0], errors[2])


def test_what_a_network_computes_is_counted() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Exp", ["a"], ["y"])]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, ["n", 7])], [value("y", TensorProto.FLOAT, ["n", 7])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    pictures = np.random.default_rng(2).normal(size=(5, 7)).astype(np.float32)
    steps: list[tuple[int, int]] = []
    seen = histograms(model, ["x", "a", "y"], pictures, lambda done, total: steps.append((done, total)))
    assert seen["x"].low == pytest.approx(pictures.min())
    assert seen["a"].high == pytest.approx(-pictures.min())
    assert seen["y"].high == pytest.approx(np.exp(-pictures.min()))
    assert [one.counts.sum() for one in seen.values()] == [35, 35, 35]
    assert steps == [(done, 10) for done in range(1, 11)]
    with pytest.raises(ValueError, match="y is not finite"):
        histograms(model, ["y"], pictures * 1e4)
