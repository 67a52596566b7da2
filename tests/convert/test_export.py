"""Keras and TensorFlow networks to ONNX, where TensorFlow is installed; see also benchmarks/arcface_parity.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from convert.__main__ import main
from convert.arcface import build_arcface, load_weights, read_legacy_weights
from convert.errors import ParityError, WeightsError
from convert.export import export, simplify
from models.card import load_card
from models.presets import Changes
from runtime.session import SharedSession

pytest.importorskip("tensorflow", reason="TensorFlow is only installed where weights are converted: '.[cpu,convert]'")
tf_keras = pytest.importorskip("tf_keras")
pytest.importorskip("tf2onnx")

STACKS = ((8, 1), (8, 2))


def randomised(model: Any) -> Any:
    random = np.random.default_rng(1)
    for layer in model.layers:
        if type(layer).__name__ == "PReLU":
            layer.set_weights([random.normal(0.25, 0.1, weight.shape) for weight in layer.get_weights()])
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def whole_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "small.h5"
    randomised(build_arcface(tf_keras, STACKS, 16)).save(path, save_format="h5")
    return path


def test_a_whole_model_is_exported_with_a_card(whole_model: Path, tmp_path: Path) -> None:
    output, report = tmp_path / "small.onnx", tmp_path / "report.json"
    command = ["export", "--weights", str(whole_model), "--output", str(output), "--report", str(report)]
    assert main([*command, "--preset", "insightface-arcface"]) == 0
    card = load_card(output)
    assert (card.name, card.dimension, card.layout, card.input_size) == ("small", 16, "NCHW", (112, 112))
    assert card.parity["random_cosine_min"] >= 0.99999
    assert json.loads(report.read_text())["parity"]["random"]["pictures"] == 12
    kinds = {node.op_type for node in onnx.load(output).graph.node}
    assert kinds == {"Conv", "PRelu", "BatchNormalization", "Add", "Flatten", "Gemm"}
    session = SharedSession(output)
    assert session.run({session.inputs[0]: np.zeros((5, 3, 112, 112), np.float32)})[0].shape == (5, 16)


def test_a_model_without_a_preset_is_refused(whole_model: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["export", "--weights", str(whole_model), "--output", str(tmp_path / "x.onnx")]) == 2
    assert "--preset" in capsys.readouterr().err


def test_weights_of_another_network_name_the_first_layer_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "arcface_weights.h5"
    build_arcface(tf_keras, ((8, 1), (16, 1)), 16).save_weights(path, save_format="h5")
    with pytest.raises(
        WeightsError, match=r"layer \d+ should be conv3_block1_\w+ with .*, the file has conv3_block1_\w+ with"
    ):
        load_weights(build_arcface(tf_keras, ((8, 1), (8, 1)), 16), read_legacy_weights(path), path.name)
    with pytest.raises(WeightsError, match="layers with weights"):
        load_weights(build_arcface(tf_keras, ((8, 1),), 16), read_legacy_weights(path)[:5], path.name)


def test_networks_that_differ_are_not_written_and_the_layer_is_named(
    whole_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that breaks a layer is what parity is there for."""

    def broken(raw: onnx.ModelProto) -> onnx.ModelProto:
        model = simplify(raw)
        slopes = [node for node in model.graph.node if node.op_type == "PRelu"]
        tensor = next(t for t in model.graph.initializer if t.name == slopes[2].input[1])
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + 3, tensor.name))
        return model

    monkeypatch.setattr("convert.export.simplify", broken)
    output = tmp_path / "x.onnx"
    with pytest.raises(ParityError, match="layer conv3_block1_1_prelu"):
        export(whole_model, output, list, preset_name="insightface-arcface", changes=Changes())
    assert not output.exists()
