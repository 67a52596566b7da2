from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.cpu_graph import has_rectifiers, split_rectifiers
from runtime.engine import FaceEngine


def network(slope: np.ndarray, channels: int) -> onnx.ModelProto:
    random = np.random.default_rng(4)
    weights = [
        numpy_helper.from_array(random.normal(0, 1, (channels, 3, 3, 3)).astype(np.float32), "weight"),
        numpy_helper.from_array(random.normal(0, 1, (5, channels, 1, 1)).astype(np.float32), "last"),
        numpy_helper.from_array(slope.astype(np.float32), "slope"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("PRelu", ["c", "slope"], ["r"]),
        helper.make_node("Conv", ["r", "last"], ["y"], kernel_shape=[1, 1]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 9, 11])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5, 9, 11])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answer(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(5).normal(0, 2, (2, 3, 9, 11)).astype(np.float32)
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("blocked", [True, False])
@pytest.mark.parametrize("channels", [32, 20])
@pytest.mark.parametrize("slopes", [(0.0, 1.0), (-0.5, 0.9), (0.2, 1.7)])
def test_a_rectifier_computes_the_same_without_its_operator(
    blocked: bool, channels: int, slopes: tuple[float, float]
) -> None:
    model = network(np.linspace(*slopes, channels).reshape(channels, 1, 1), channels)
    expected = answer(model)
    assert split_rectifiers(model, blocked) == 1
    assert not {node.op_type for node in model.graph.node} & {"PRelu"}
    onnx.checker.check_model(model)
    assert {node.op_type for node in model.graph.node} >= ({"Relu"} if blocked and channels == 32 else {"Min"})
    np.testing.assert_allclose(answer(model), expected, atol=2e-5)


@pytest.mark.parametrize("shape", [(11,), (1,), (9, 11)])
def test_a_slope_that_is_not_by_channel_stays(shape: tuple[int, ...]) -> None:
    model = network(np.full(shape, 0.3), 32)
    before = model.SerializeToString()
    assert split_rectifiers(model) == 0
    assert model.SerializeToString() == before


def test_sface_gives_the_embeddings_of_the_file_as_it_is(engine: FaceEngine, portraits: list[bytes]) -> None:
    path = engine.embedder.session.path
    assert has_rectifiers(path)
    plain = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    crops = np.concatenate([engine.embedder.align(*_found(engine, picture)) for picture in portraits])
    pixels = crops[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    assert engine.embedder_card.colour == "RGB"
    expected = plain.run(None, {"data": pixels})[0]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(engine.embedder.embed(crops) - expected).max() < 1e-5


def test_a_network_without_rectifiers_is_told_apart_unparsed(models_dir: Path) -> None:
    assert not has_rectifiers(models_dir / "retinaface.onnx")


def _found(engine: FaceEngine, picture: bytes) -> tuple[np.ndarray, object]:
    from runtime.decode import decode

    image = decode(picture)
    return image, engine.detector.detect(image)
