"""A first convolution that loses nothing by bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.bf16_graph import split_first_convolution
from runtime.onnx_graph import replace_items


def network(*, planes: bool, scaled: bool) -> onnx.ModelProto:
    """A convolution of pictures, 0 to 255 with its own scaling or 0 to 1, as planes or as pixels."""
    random = np.random.default_rng(1)
    weights = [numpy_helper.from_array(random.normal(size=(8, 3, 3, 3)).astype(np.float32), "w")]
    nodes, name = [], "x"
    if scaled:
        weights += [
            numpy_helper.from_array(np.float32([127.5]), "m"),
            numpy_helper.from_array(np.float32([1 / 128]), "s"),
        ]
        nodes += [helper.make_node("Sub", ["x", "m"], ["c"]), helper.make_node("Mul", ["c", "s"], ["n"])]
        name = "n"
    if not planes:
        nodes.append(helper.make_node("Transpose", [name], ["t"], perm=[0, 3, 1, 2]))
        name = "t"
    nodes.append(helper.make_node("Conv", [name, "w"], ["y"], pads=[1, 1, 1, 1]))
    shape = ["n", 3, 16, 16] if planes else ["n", 16, 16, 3]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, 16, 16])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with what enters its products rounded to bfloat16, as a processor does that multiplies so."""
    nodes = []
    for node in model.graph.node:
        for index in (0, 1) if node.op_type in ("Conv", "Gemm") else ():
            short, again = (f"{node.output[0]}/{index}/{name}" for name in ("short", "again"))
            nodes.append(helper.make_node("Cast", [node.input[index]], [short], to=TensorProto.BFLOAT16))
            nodes.append(helper.make_node("Cast", [short], [again], to=TensorProto.FLOAT))
            node.input[index] = again
        nodes.append(node)
    replace_items(model.graph.node, nodes)
    return model


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("planes", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_a_split_convolution_gives_in_bfloat16_what_the_whole_one_gives_in_float32(planes: bool, scaled: bool) -> None:
    high = 255.0 if scaled else 1.0
    shape = (2, 3, 16, 16) if planes else (2, 16, 16, 3)
    x = (np.random.default_rng(0).random(shape) * high).astype(np.float32)
    expected = run(network(planes=planes, scaled=scaled), x)
    loss = np.abs(run(rounding(network(planes=planes, scaled=scaled)), x) - expected).max()
    model = network(planes=planes, scaled=scaled)
    assert split_first_convolution(model, 0.0, high)
    onnx.checker.check_model(model)
    assert np.abs(run(model, x) - expected).max() < loss / 50
    assert np.abs(run(rounding(model), x) - expected).max() < loss / 50


def test_the_embedder_of_the_default_pack_is_split(models_dir: Path) -> None:
    assert split_first_convolution(onnx.load(models_dir / "sface.onnx"), 0.0, 255.0)


def test_a_network_that_begins_in_another_way_stays_as_it_is() -> None:
    model = network(planes=True, scaled=False)
    model.graph.node.insert(0, helper.make_node("Relu", ["x"], ["r"]))
    model.graph.node[1].input[0] = "r"
    before = model.SerializeToString()
    assert not split_first_convolution(model, 0.0, 1.0)
    assert model.SerializeToString() == before
