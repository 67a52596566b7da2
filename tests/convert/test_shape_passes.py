"""What only moves numbers goes; what changes them stays."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from tiny_graphs import floats, network, operators, run

from convert.passes import apply, prune
from convert.shape_passes import constant_reshape, drop_casts, merge_transposes


def test_a_target_that_is_computed_from_the_shape_becomes_a_constant() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["narrow"], to=TensorProto.INT32),
        helper.make_node("Slice", ["narrow", "first", "second", "first"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["joined"], axis=0),
        helper.make_node("Cast", ["joined"], ["target"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    weights = {"first": np.array([0]), "second": np.array([1]), "rest": np.array([48], np.int32)}
    model = network(nodes, weights, shape=("batch", 3, 4, 4))
    lean = apply(model, [constant_reshape, prune])
    x = floats(5, 3, 4, 4)
    assert operators(lean) == {"Reshape": 1}
    np.testing.assert_array_equal(run(lean, x)[0], run(model, x)[0])


def test_a_reshape_that_moves_numbers_between_pictures_stays() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["batch"]),
        helper.make_node("Mul", ["batch", "two"], ["twice"]),
        helper.make_node("Concat", ["twice", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    weights = {"first": np.array([0]), "two": np.array([2]), "rest": np.array([24])}
    model = network(nodes, weights, shape=("batch", 3, 4, 4))
    assert operators(apply(model, [constant_reshape, prune]))["Shape"] == 1


def test_a_cast_to_what_a_number_is_already_vanishes_and_another_stays() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["same"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["same"], ["again"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["again"], ["r"]),
        helper.make_node("Cast", ["r"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["half"], ["y"], to=TensorProto.FLOAT),
    ]
    model = network(nodes, {})
    lean = drop_casts(model)
    x = floats(1, 3, 6, 6)
    assert operators(lean) == {"Relu": 1, "Cast": 2}
    np.testing.assert_array_equal(run(lean, x)[0], run(model, x)[0])


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [([0, 2, 3, 1], [0, 3, 1, 2], 0), ([0, 2, 3, 1], [0, 2, 3, 1], 1), ([0, 1, 2, 3], [0, 1, 2, 3], 0)],
)
def test_transposes_in_a_row_become_one_or_none(first: list[int], second: list[int], left: int) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=first),
        helper.make_node("Transpose", ["a"], ["b"], perm=second),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    model = network(nodes, {}, shape=(1, 3, 6, 5))
    lean = apply(model, [merge_transposes, prune])
    x = floats(1, 3, 6, 5)
    assert operators(lean)["Transpose"] == left
    np.testing.assert_array_equal(run(lean, x)[0], run(model, x)[0])


def test_a_transpose_that_somebody_else_reads_or_that_gives_an_output_stays() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["z"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["z"], ["y"], perm=[0, 3, 1, 2]),
    ]
    model = network(nodes, {}, shape=(1, 3, 6, 5), outputs=("y", "z"))
    lean = apply(model, [merge_transposes, prune])
    x = floats(1, 3, 6, 5)
    for one, other in zip(run(lean, x), run(model, x), strict=True):
        np.testing.assert_array_equal(one, other)
