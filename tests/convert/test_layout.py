"""Networks laid out for int8 compute what they computed before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from convert.layout import batchnorm_as_affine, name_nodes, prelu_as_max
from convert.quantise import MIN_OPSET, prepare, quantisable


def network(nodes: Sequence[onnx.NodeProto], opset: int = 17, **constants: np.ndarray) -> onnx.ModelProto:
    """A network from ``x`` to ``y``, both (n, 3, 5, 5)."""
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    shape = ["n", 3, 5, 5]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    pictures = np.random.default_rng(3).normal(size=(2, 3, 5, 5)).astype(np.float32)
    (output,) = session.run(None, {"x": pictures})
    return np.asarray(output)


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(
    ("slopes", "expected"),
    [
        ([0.25, 0.0, 1.0], {"Mul", "Max"}),
        ([-0.5, -3.0, 0.9], {"Mul", "Max"}),
        ([0.25, 1.5, -2.0], {"Relu", "Min", "Mul", "Add"}),
    ],
)
def test_a_prelu_is_written_in_fast_operators(slopes: list[float], expected: set[str]) -> None:
    node = helper.make_node("PRelu", ["x", "slope"], ["y"])
    model = network([node], slope=np.array(slopes).reshape(3, 1, 1))
    written = prelu_as_max(model)
    onnx.checker.check_model(written, full_check=True)
    assert operators(written) == expected
    np.testing.assert_allclose(run(written), run(model), atol=1e-6)


def test_a_prelu_whose_slope_is_computed_stays() -> None:
    nodes = [helper.make_node("Abs", ["x"], ["slope"]), helper.make_node("PRelu", ["x", "slope"], ["y"])]
    assert operators(prelu_as_max(network(nodes))) == {"Abs", "PRelu"}


def test_a_batch_normalization_is_a_factor_and_a_shift() -> None:
    random = np.random.default_rng(0)
    statistics = {name: random.uniform(0.5, 2, 3) for name in ("gamma", "beta", "mean", "variance")}
    node = helper.make_node("BatchNormalization", ["x", *statistics], ["y"], epsilon=0.1)
    model = network([node], **statistics)
    written = batchnorm_as_affine(model)
    onnx.checker.check_model(written, full_check=True)
    assert operators(written) == {"Mul", "Add"}
    np.testing.assert_allclose(run(written), run(model), atol=1e-5)


def test_nodes_get_names_of_their_own() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="same"),
        helper.make_node("Abs", ["a"], ["b"]),
        helper.make_node("Neg", ["b"], ["y"], name="same"),
    ]
    named = [node.name for node in name_nodes(network(nodes)).graph.node]
    assert named[0] == "same"
    assert all(named)
    assert len(set(named)) == 3


def test_an_old_network_is_brought_to_an_opset_that_knows_int8() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    model = network([node], opset=11, w=np.random.default_rng(0).normal(size=(3, 3, 1, 1)))
    prepared = prepare(model, np.random.default_rng(1).normal(size=(2, 3, 5, 5)).astype(np.float32))
    assert prepared.opset_import[0].version >= MIN_OPSET
    assert len(quantisable(prepared)) == 1
    np.testing.assert_allclose(run(prepared), run(model), atol=1e-6)
