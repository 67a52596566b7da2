"""int8 networks give the same numbers whether a processor adds two products in 16 bits or in 32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from convert.quantise import prepare, quantisable, quantise, values_to_range
from convert.ranges import Range
from runtime.byte_pairs import may_saturate
from runtime.faces import FloatArray
from runtime.providers import VNNI, processor_flags

WEIGHTS = {
    "first": (8, 3, 3, 3),
    "odd": (5, 8, 3, 3),
    "grouped": (10, 1, 3, 3),
    "point": (16, 10, 1, 1),
    "transposed": (24, 16 * 8 * 8),
    "straight": (24, 12),
    "product": (12, 7),
}


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    """One of each kind of node that is quantised; all weights of each output have one sign, so that sums are large."""
    random = np.random.default_rng(0)
    constants = []
    for name, shape in WEIGHTS.items():
        axis = 1 if name in {"straight", "product"} else 0
        signs = np.expand_dims(
            random.choice([-1, 1], shape[axis]), tuple(range(axis)) + tuple(range(axis + 1, len(shape)))
        )
        constants.append(numpy_helper.from_array((signs * random.uniform(0.9, 1, shape)).astype(np.float32), name))
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "odd"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["b", "grouped"], ["c"], pads=[1, 1, 1, 1], group=5),
        helper.make_node("Conv", ["c", "point"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "transposed"], ["f"], transB=1),
        helper.make_node("Gemm", ["f", "straight"], ["g"]),
        helper.make_node("MatMul", ["g", "product"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "network",
        [value("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [value("y", TensorProto.FLOAT, ["n", 7])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(path: Path, pictures: FloatArray, *, exact: bool) -> FloatArray:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": pictures})[0], np.float32)


def spread(model: onnx.ModelProto, pictures: FloatArray) -> dict[str, Range]:
    """The range of every value that needs one, as ``pictures`` show it."""
    names = values_to_range(model, quantisable(model))
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in {"x", "y"}
    )
    session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = dict(zip([output.name for output in session.get_outputs()], session.run(None, {"x": pictures}), strict=True))
    seen["x"] = pictures
    return {name: Range(float(seen[name].min()), float(seen[name].max())) for name in names}


def test_no_sum_is_cut_off(network: onnx.ModelProto, tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).uniform(0.8, 1, (4, 3, 8, 8)).astype(np.float32)
    prepared = prepare(network, pictures)
    quantised = quantise(prepared, spread(prepared, pictures), quantisable(prepared))
    path = tmp_path / "int8.onnx"
    onnx.save(quantised, path)
    assert not may_saturate(path)
    fast = run(path, pictures, exact=False)
    np.testing.assert_array_equal(fast, run(path, pictures, exact=True))
    onnx.save(network, tmp_path / "fp32.onnx")
    expected = run(tmp_path / "fp32.onnx", pictures, exact=False)
    lengths = np.linalg.norm(fast, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((fast * expected).sum(axis=1) / lengths).min() > 0.999


def test_weights_that_use_all_bits_are_told(network: onnx.ModelProto, tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).uniform(0.8, 1, (4, 3, 8, 8)).astype(np.float32)
    prepared = prepare(network, pictures)
    quantised = quantise(prepared, spread(prepared, pictures), quantisable(prepared))
    widest = max(
        (tensor for tensor in quantised.graph.initializer if tensor.data_type == TensorProto.INT8),
        key=lambda tensor: int(np.prod(tensor.dims)),
    )
    weights = numpy_helper.to_array(widest).astype(np.int16)
    widest.CopyFrom(numpy_helper.from_array((np.sign(weights) * 127).astype(np.int8), widest.name))
    path = tmp_path / "all.onnx"
    onnx.save(quantised, path)
    assert may_saturate(path)
    if not processor_flags() & VNNI:
        assert not np.array_equal(run(path, pictures, exact=False), run(path, pictures, exact=True))


def test_a_network_in_float_is_not_looked_into(network: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "fp32.onnx"
    onnx.save(network, path)
    assert not may_saturate(path)


def test_operators_that_are_quantised_themselves_are_taken_as_saturating(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [value("x", TensorProto.UINT8, [1, 4])],
        [value("y", TensorProto.INT32, [1, 4])],
        [numpy_helper.from_array(np.ones((4, 4), np.int8), "w")],
    )
    path = tmp_path / "product.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    assert may_saturate(path)
