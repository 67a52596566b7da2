"""BatchNormalization is folded into its neighbours where that is exact, and left where it is not."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from tiny_graphs import batchnorm, floats, network, norm, operators, run

from convert import batchnorm_passes as passes
from convert.passes import apply


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("group", [1, 3])
def test_batchnorm_after_a_padded_convolution_is_folded(with_bias: bool, group: int) -> None:
    weights = {"w": floats(6, 3 // group, 3, 3), **batchnorm("n", 6)} | ({"b": floats(6)} if with_bias else {})
    inputs = ["x", "w", "b"] if with_bias else ["x", "w"]
    nodes = [
        helper.make_node("Conv", inputs, ["c"], pads=[1, 1, 1, 1], group=group),
        norm("c", "n", "y"),
    ]
    model = network(nodes, weights)
    folded = passes.fold_batchnorm_after_conv(model)
    x = floats(1, 3, 6, 6)
    assert operators(folded) == {"Conv": 1}
    np.testing.assert_allclose(run(folded, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("attributes", [{}, {"pads": [0, 0, 0, 0]}, {"auto_pad": "VALID"}, {"strides": [2, 2]}])
def test_batchnorm_before_a_convolution_that_pads_nothing_is_folded(
    with_bias: bool, group: int, attributes: dict[str, object]
) -> None:
    weights = {"w": floats(6, 3 // group, 3, 3), **batchnorm("n", 3)} | ({"b": floats(6)} if with_bias else {})
    inputs = ["c", "w", "b"] if with_bias else ["c", "w"]
    nodes = [norm("x", "n", "c"), helper.make_node("Conv", inputs, ["y"], group=group, **attributes)]
    model = network(nodes, weights)
    folded = passes.fold_batchnorm_before_conv(model)
    x = floats(1, 3, 6, 6)
    assert operators(folded) == {"Conv": 1}
    np.testing.assert_allclose(run(folded, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attributes", [{"pads": [1, 1, 1, 1]}, {"pads": [0, 0, 1, 1]}, {"auto_pad": "SAME_UPPER"}])
def test_batchnorm_before_a_convolution_that_pads_is_left(attributes: dict[str, object]) -> None:
    nodes = [norm("x", "n", "c"), helper.make_node("Conv", ["c", "w"], ["y"], **attributes)]
    model = network(nodes, {"w": floats(6, 3, 3, 3), **batchnorm("n", 3)})
    assert operators(passes.fold_batchnorm_before_conv(model)) == {"Conv": 1, "BatchNormalization": 1}


def test_batchnorm_is_left_before_a_convolution_where_something_else_reads_the_norm() -> None:
    nodes = [norm("x", "n", "c"), helper.make_node("Conv", ["c", "w"], ["y"]), helper.make_node("Relu", ["c"], ["z"])]
    model = network(nodes, {"w": floats(6, 3, 3, 3), **batchnorm("n", 3)}, outputs=("y", "z"))
    assert operators(passes.fold_batchnorm_before_conv(model))["BatchNormalization"] == 1


def test_batchnorm_before_a_padded_convolution_is_left() -> None:
    nodes = [norm("x", "n", "c"), helper.make_node("Conv", ["c", "w"], ["y"], pads=[1, 1, 1, 1])]
    model = network(nodes, {"w": floats(6, 3, 3, 3), **batchnorm("n", 3)})
    assert operators(passes.fold_batchnorm_after_conv(model)) == {"Conv": 1, "BatchNormalization": 1}


def test_batchnorm_is_left_where_something_else_reads_the_convolution() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), norm("c", "n", "y"), helper.make_node("Relu", ["c"], ["z"])]
    model = network(nodes, {"w": floats(6, 3, 3, 3), **batchnorm("n", 6)}, outputs=("y", "z"))
    assert operators(passes.fold_batchnorm_after_conv(model))["BatchNormalization"] == 1


def test_a_weight_that_two_convolutions_share_is_not_changed_under_the_other() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        norm("c", "n", "y"),
        helper.make_node("Conv", ["x", "w"], ["z"]),
    ]
    model = network(nodes, {"w": floats(6, 3, 3, 3), **batchnorm("n", 6)}, outputs=("y", "z"))
    folded = passes.fold_batchnorm_after_conv(model)
    x = floats(1, 3, 6, 6)
    assert operators(folded) == {"Conv": 2}
    for one, other in zip(run(folded, x), run(model, x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("with_bias", [True, False])
def test_batchnorm_around_flatten_and_gemm_is_folded_on_both_sides(transposed: int, with_bias: bool) -> None:
    weight = floats(5, 108) if transposed else floats(108, 5)
    bias = {"b": floats(5)} if with_bias else {}
    nodes = [
        norm("x", "before", "n"),
        helper.make_node("Flatten", ["n"], ["f"]),
        helper.make_node("Gemm", ["f", "w", *bias], ["g"], transB=transposed),
        norm("g", "after", "y"),
    ]
    model = network(nodes, {"w": weight, **bias, **batchnorm("before", 3), **batchnorm("after", 5)})
    folded = apply(model, [passes.fold_batchnorm_before_gemm, passes.fold_batchnorm_after_gemm])
    x = floats(1, 3, 6, 6)
    assert operators(folded) == {"Flatten": 1, "Gemm": 1}
    np.testing.assert_allclose(run(folded, x)[0], run(model, x)[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("attributes", [{"alpha": 0.5}, {"beta": 2.0}])
def test_a_gemm_with_factors_is_left(attributes: dict[str, float]) -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["g"], **attributes),
        norm("g", "n", "y"),
    ]
    model = network(nodes, {"w": floats(108, 5), "b": floats(5), **batchnorm("n", 5)})
    assert operators(passes.fold_batchnorm_after_gemm(model))["BatchNormalization"] == 1
