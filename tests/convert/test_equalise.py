"""Channels alike in size: the network computes what it did, and int8 scales serve every channel."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_graphs import floats, network, run

from convert.equalise import equalise
from convert.watch import watched

SIZES = np.geomspace(0.01, 10, 8).astype(np.float32)
"""Of the channels: a thousandth of each other."""


def block(extra: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    """A convolution of unequal channels, a rectifier, a depthwise and another convolution, a factor and a shift."""
    weights = {
        "w": floats(8, 3, 3, 3) * SIZES.reshape(-1, 1, 1, 1),
        "b": floats(8) * SIZES,
        "slope": np.abs(floats(8, 1, 1)),
        "d": floats(8, 1, 3, 3),
        "v": floats(4, 8, 1, 1),
        "factor": floats(8, 1, 1) * SIZES.reshape(-1, 1, 1),
        "shift": floats(8, 1, 1),
        "u": floats(4, 8, 3, 3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"]),
        helper.make_node("PRelu", ["a", "slope"], ["r"]),
        helper.make_node("Conv", ["r", "d"], ["m"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["m", "v"], ["left"]),
        helper.make_node("Mul", ["r", "factor"], ["f"]),
        helper.make_node("Add", ["f", "shift"], ["g"]),
        helper.make_node("Conv", ["g", "u"], ["right"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["left", "right"], ["y"]),
        *(extra or []),
    ]
    return network(nodes, weights, shape=("n", 3, 6, 6))


def spread(model: onnx.ModelProto, name: str, pictures: np.ndarray) -> float:
    """How many times as large the largest channel of a value is as the smallest."""
    sizes = [np.abs(values[name][0]).max(axis=(1, 2)) for values in watched(model, [name], pictures)]
    means = np.mean(sizes, axis=0)
    return float(means.max() / means.min())


def test_channels_come_nearer_to_each_other_and_nothing_else_changes() -> None:
    model, pictures = block(), floats(6, 3, 6, 6)
    before = model.SerializeToString()
    equal = equalise(model, pictures)
    assert model.SerializeToString() == before
    np.testing.assert_allclose(run(equal, pictures)[0], run(model, pictures)[0], rtol=1e-4, atol=1e-4)
    for name in ("a", "r", "g"):
        assert spread(equal, name, pictures) < spread(model, name, pictures) / 2


def test_a_value_that_others_read_is_left_alone() -> None:
    """The sum of two branches has no convolution for a maker, and a sigmoid does not let a factor pass."""
    model = block([helper.make_node("Sigmoid", ["r"], ["s"])])
    model.graph.output.append(helper.make_tensor_value_info("s", 1, None))
    pictures = floats(4, 3, 6, 6)
    equal = equalise(model, pictures)
    assert spread(equal, "a", pictures) == pytest.approx(spread(model, "a", pictures))
    for ours, theirs in zip(run(equal, pictures), run(model, pictures), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_channel_of_zeros_stays_one() -> None:
    model = block()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in ("w", "b"):
        value = numpy_helper.to_array(tensors[name]).copy()
        value[3] = 0
        tensors[name].CopyFrom(numpy_helper.from_array(value, name))
    pictures = floats(4, 3, 6, 6)
    result = run(equalise(model, pictures), pictures)[0]
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result, run(model, pictures)[0], rtol=1e-4, atol=1e-4)
