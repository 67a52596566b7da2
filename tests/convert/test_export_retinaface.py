"""``python -m convert export`` of retina-face's weights, on a small network of the same structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest

from convert.__main__ import main, told
from convert.adopt import adopt
from convert.arcface import LayerWeights
from convert.errors import WeightsError
from convert.export_retinaface import export_retinaface
from convert.portraits import Portrait
from convert.retinaface import check_weights, layer_shapes
from convert.weights import Kind, recognise
from models.presets import Changes, find_preset
from models.settings import Settings
from models.verify import verify_model
from runtime.detectors import open_detector
from runtime.detectors.retinaface_resnet50 import RetinaFaceResNet50
from runtime.engine import open_engine
from runtime.session import SharedSession
from tests.retinaface import DIVISOR, random_weights, save_small


def save_h5(path: Path, layers: Sequence[LayerWeights]) -> Path:
    """As Keras 2 writes weights."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            names = [f"{layer.name}/{number}:0" for number in range(len(layer.arrays))]
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, layer.arrays, strict=True):
                group[name] = array
    return path


@pytest.fixture
def portraits(group_picture: Path, models_dir: Path) -> list[Portrait]:
    from convert.portraits import face_detector, faces_in

    found = faces_in(group_picture, face_detector(models_dir, str), "", "t1.jpg", lambda _text: None)
    return [replace(one, source=f"{number}") for number, one in enumerate(found[:2])]


def test_weights_become_a_detector_that_serves(tmp_path: Path, portraits: list[Portrait], models_dir: Path) -> None:
    h5 = save_h5(tmp_path / "any.bin", random_weights())
    assert recognise(h5) is Kind.RETINAFACE
    output = tmp_path / "detector.onnx"
    done = export_retinaface(h5, output, lambda: portraits, changes=Changes(), divisor=DIVISOR)
    assert verify_model(output) == []
    assert (done.card.name, done.card.family, done.card.origin) == ("retinaface-r50", "retinaface-resnet50", "any.bin")
    assert "faces in 2 pictures" in done.figures["checks"][0]
    lines = list(told(done))
    assert lines[-2].startswith(f"{output}: written, ")
    assert lines[-1] == f"  use it with: DETECTOR={output}"
    settings = Settings(_env_file=None, models_dir=models_dir, detector=str(output), execution_provider="cpu")
    engine = open_engine(settings)
    assert isinstance(engine.detector, RetinaFaceResNet50)
    assert engine.embed_image(portraits[0].image).embeddings.shape[1] == 128


def test_onnx_files_as_deepface_publishes_them_are_adopted(tmp_path: Path, portraits: list[Portrait]) -> None:
    model = onnx.load(save_small(tmp_path / "planes.onnx"))
    model.graph.node.insert(0, onnx.helper.make_node("Transpose", ["pictures"], ["data"], perm=[0, 3, 1, 2]))
    shape = ["n", "height", "width", 3]
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("pictures", onnx.TensorProto.FLOAT, shape))
    source = tmp_path / "retinaface.onnx"
    onnx.save(model, source)
    adopted = tmp_path / "retinaface-r50.onnx"
    done = adopt(source, find_preset("deepface-retinaface"), adopted, lambda: portraits, changes=Changes())
    assert done.card.layout == "NHWC"
    assert done.card.parity["cosine_min"] > 0.99999
    paths = (adopted, tmp_path / "planes.onnx")
    one, other = (open_detector(SharedSession(path)).detect(portraits[0].image) for path in paths)
    np.testing.assert_array_equal(one.boxes, other.boxes)


def test_the_command_knows_the_file_by_its_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    h5 = save_h5(tmp_path / "arcface_weights.h5", random_weights())
    assert main(["export", "--weights", str(h5), "--output", str(tmp_path / "x.onnx")]) == 2
    assert "RetinaFace: the layer conv0 has weights of (7, 7, 3, 4), (7, 7, 3, 64) is needed" in capsys.readouterr().err
    assert main(["export", "--weights", str(h5), "--output", str(tmp_path / "x.onnx"), "--precision", "fp16"]) == 2
    assert "only embedders can be had in another precision" in capsys.readouterr().err
    assert not (tmp_path / "x.onnx").exists()


def test_the_real_network_has_this_many_weights() -> None:
    shapes = layer_shapes()
    count = sum(int(np.prod(shape)) * (4 if len(shape) == 1 else 1) for shape in shapes.values())
    # retinaface.h5 has 118,667,368 bytes, four a number, biases of convolutions and HDF5's own included.
    assert 118_667_368 * 0.99 < 4 * count < 118_667_368


@pytest.mark.parametrize("fault", ["missing", "more", "infinite", "words", "norm of another size", "bias too long"])
def test_other_weights_are_refused(fault: str) -> None:
    layers = random_weights()
    if fault == "missing":
        layers = [layer for layer in layers if layer.name != "ssh_c2_aggr"]
    elif fault == "more":
        layers.append(LayerWeights("extra", (np.zeros(1),)))
    elif fault == "words":
        layers[0] = LayerWeights("bn_data", (np.array([b"a", b"b", b"c"]),) * 4)
    elif fault == "norm of another size":
        layers[0] = LayerWeights("bn_data", (*layers[0].arrays[:2], np.zeros(7), np.ones(3)))
    elif fault == "bias too long":
        layers[1] = LayerWeights("conv0", (layers[1].arrays[0], np.zeros(99)))
    else:
        layers[1] = LayerWeights("conv0", (np.full_like(layers[1].arrays[0], np.inf),))
    word = {
        "missing": "ssh_c2_aggr is missing",
        "more": "a layer extra more",
        "infinite": "not finite",
        "words": "not finite",
        "norm of another size": r"bn_data has weights of \(3,\) and \(7,\)",
        "bias too long": r"conv0 has weights of .* and \(99,\)",
    }[fault]
    with pytest.raises(WeightsError, match=word):
        check_weights(layers, "x.h5", DIVISOR)
