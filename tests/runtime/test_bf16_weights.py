"""Weights as bfloat16 numbers by which a network loses less than by the nearest ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.bf16_weights import nearest, round_weights
from runtime.engine import FaceEngine
from runtime.providers import CPU, OPENVINO, prepared
from runtime.session import as_batch
from tests.runtime.test_bf16_graph import rounding

ENDS = (-1.0, 1.0)


def network(second: Mapping[str, object], weights: np.ndarray, *, size: int = 24) -> onnx.ModelProto:
    """A convolution and a rectifier, and a second convolution to try."""
    first = np.random.default_rng(1).normal(size=(16, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "second"], ["y"], **second),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(weights, "second")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def convolutions(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The weights of each convolution, by name."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {node.input[1]: tensors[node.input[1]] for node in model.graph.node if node.op_type == "Conv"}


def with_nearest(model: onnx.ModelProto) -> onnx.ModelProto:
    short = onnx.ModelProto()
    short.CopyFrom(model)
    names = convolutions(short)
    for tensor in short.graph.initializer:
        if tensor.name in names:
            tensor.CopyFrom(numpy_helper.from_array(nearest(names[tensor.name]), tensor.name))
    return short


def run(model: onnx.ModelProto, feeds: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=[CPU])
    return np.asarray(session.run(None, {model.graph.input[0].name: feeds})[0])


def directions(model: onnx.ModelProto, feeds: np.ndarray) -> np.ndarray:
    rows = np.concatenate([run(model, feeds[index : index + 1]) for index in range(len(feeds))]).astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def smooth(size: int) -> np.ndarray:
    """A picture of soft blobs, none of those that the weights were rounded by."""
    noise = np.random.default_rng(5).normal(size=(size, size, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.clip(blurred / blurred.std() / 2, *ENDS).transpose(2, 0, 1)[None]


@pytest.fixture(scope="module")
def crops(engine: FaceEngine, group_picture: Path) -> np.ndarray:
    image = cv2.imread(str(group_picture))
    faces = engine.embedder.align(image, engine.embed_image(image).detections)
    return np.concatenate([faces, faces[:, :, ::-1]])


def test_the_nearest_number_is_the_one_that_a_cast_gives() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["s"], to=TensorProto.BFLOAT16),
            helper.make_node("Cast", ["s"], ["y"], to=TensorProto.FLOAT),
        ],
        "cast",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    ties = np.float32([1 + 1 / 256, 1 + 3 / 256, -1 - 1 / 256, 0, 255.5])
    x = np.concatenate([np.random.default_rng(0).normal(size=1000).astype(np.float32), ties])
    assert np.array_equal(nearest(x), run(model, x))


@pytest.mark.parametrize(
    ("second", "shape"),
    [
        ({"pads": [1, 1, 1, 1]}, (32, 16, 3, 3)),
        ({"pads": [0, 1, 2, 1], "strides": [2, 1]}, (32, 16, 3, 3)),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (32, 16, 3, 3)),
        ({"dilations": [2, 2]}, (32, 16, 3, 3)),
        ({"group": 16}, (16, 1, 3, 3)),
        ({}, (32, 16, 1, 1)),
        ({}, (32, 16, 5, 3)),
    ],
)
def test_errors_cancel_in_convolutions_of_all_kinds(second: dict[str, object], shape: tuple[int, ...]) -> None:
    weights = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    model = network(second, weights)
    x = smooth(24)
    expected = run(model, x)
    plain = np.square(run(with_nearest(model), x) - expected).mean()
    assert round_weights(model, *ENDS)
    for name, rounded in convolutions(model).items():
        assert np.array_equal(nearest(rounded), rounded), name
    # No number strays: errors are put into the next ones, not heaped up.
    assert np.abs(convolutions(model)["second"] - weights).max() < 2**-5 * np.abs(weights).max()
    assert np.square(run(model, x) - expected).mean() < 0.5 * plain


def test_the_embedder_of_the_default_pack_loses_less_than_half_by_its_weights(
    models_dir: Path, engine: FaceEngine, crops: np.ndarray
) -> None:
    feeds = as_batch(crops, engine.embedder_card)
    model = onnx.load(models_dir / "sface.onnx")
    expected = directions(model, feeds)
    plain = 1 - (directions(with_nearest(model), feeds) * expected).sum(axis=1)
    assert round_weights(model, 0.0, 255.0)
    loss = 1 - (directions(model, feeds) * expected).sum(axis=1)
    assert loss.mean() < 0.5 * plain.mean()
    assert loss.max() < plain.max()


def test_the_prepared_embedder_keeps_its_cosines_when_all_its_products_are_in_bfloat16(
    models_dir: Path, engine: FaceEngine, crops: np.ndarray
) -> None:
    feeds = as_batch(crops, engine.embedder_card)
    path = models_dir / "sface.onnx"
    expected = directions(onnx.load(path), feeds)
    with prepared(path, OPENVINO, bf16=True) as file:
        cosines = (directions(rounding(onnx.load(file)), feeds) * expected).sum(axis=1)
    assert cosines.mean() > 0.99993
    assert cosines.min() > 0.9999


def test_a_full_folder_of_temporary_files_is_said_to_be_that(models_dir: Path) -> None:
    """The limit says that no file of more than 100 kB can be written."""
    program = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from runtime.errors import ProviderError\n"
        "from runtime.providers import OPENVINO, SessionOptions\nfrom runtime.session import SharedSession\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sys.dont_write_bytecode = True\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    SharedSession(Path(sys.argv[1]), OPENVINO, SessionOptions(bf16=True))\n"
        "except ProviderError as error:\n    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(models_dir / "sface.onnx")], capture_output=True, text=True, check=True
    )
    assert "the folder for temporary files does not take" in ran.stdout


def test_the_file_itself_is_opened_in_float32(models_dir: Path) -> None:
    path = models_dir / "sface.onnx"
    with prepared(path, OPENVINO) as file:
        assert file == path


def test_the_same_weights_come_out_every_time(models_dir: Path) -> None:
    found = []
    for _ in range(2):
        model = onnx.load(models_dir / "sface.onnx")
        round_weights(model, 0.0, 255.0)
        found.append(model.SerializeToString(deterministic=True))
    assert found[0] == found[1]


def test_weights_that_are_not_a_convolutions_own_stay() -> None:
    weights = np.random.default_rng(2).normal(size=(3, 16, 3, 3)).astype(np.float32)
    model = network({"pads": [1, 1, 1, 1]}, weights)
    model.graph.output[0].name = "z"
    model.graph.initializer.append(numpy_helper.from_array(np.float32([2]), "scale"))
    model.graph.node.append(helper.make_node("Mul", ["y", "scale"], ["z"]))
    assert round_weights(model, *ENDS)
    assert np.array_equal(convolutions(model)["second"], weights)

    del model.graph.initializer[:]
    model.graph.input.append(helper.make_tensor_value_info("first", TensorProto.FLOAT, [16, 3, 3, 3]))
    model.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [3, 16, 3, 3]))
    before = model.SerializeToString()
    assert not round_weights(model, *ENDS)
    assert model.SerializeToString() == before


def test_a_network_for_pictures_of_any_size_is_rounded_without_looking_at_any() -> None:
    weights = np.random.default_rng(2).normal(size=(32, 16, 3, 3)).astype(np.float32)
    model = network({"pads": [1, 1, 1, 1]}, weights)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "any"
    x = smooth(24)
    expected = run(model, x)
    plain = np.square(run(with_nearest(model), x) - expected).mean()
    assert round_weights(model, *ENDS)
    assert np.square(run(model, x) - expected).mean() < plain
