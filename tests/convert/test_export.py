"""Keras and TensorFlow networks to ONNX, where TensorFlow is installed; see also benchmarks/arcface_parity.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from convert.__main__ import main
from convert.arcface import build_arcface, load_weights, read_layered_weights, read_legacy_weights
from convert.errors import ParityError, WeightsError
from convert.export import export, simplify
from models.card import load_card
from models.presets import Changes
from runtime.session import SharedSession

pytest.importorskip("tensorflow", reason="TensorFlow is only installed where weights are converted: '.[cpu,convert]'")
tf_keras = pytest.importorskip("tf_keras")
keras = pytest.importorskip("keras")
pytest.importorskip("tf2onnx")

STACKS = ((8, 1), (8, 2))
LEAN = {"Conv", "PRelu", "BatchNormalization", "Add", "Flatten", "Gemm"}
"""All that is left of the network, from whichever file."""


def randomised(model: Any) -> Any:
    random = np.random.default_rng(1)
    for layer in model.layers:
        if type(layer).__name__ == "PReLU":
            layer.set_weights([random.normal(0.25, 0.1, weight.shape) for weight in layer.get_weights()])
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small network in every format that holds a whole one."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("sources")
    two, three = randomised(build_arcface(tf_keras, STACKS, 16)), randomised(build_arcface(keras, STACKS, 16))
    two.save(folder / "two.keras")
    two.save(folder / "two", save_format="tf")
    three.save(folder / "three.keras")
    three.save(folder / "three.h5")
    three.export(str(folder / "three"))

    def faces() -> Iterator[list[Any]]:
        yield from ([one[None]] for one in np.random.default_rng(0).normal(0, 0.5, (4, 112, 112, 3)).astype(np.float32))

    for name in ("float", "half", "dynamic", "static", "int8"):
        converter = tf.lite.TFLiteConverter.from_keras_model(two)
        converter.optimizations = [] if name == "float" else [tf.lite.Optimize.DEFAULT]
        if name == "half":
            converter.target_spec.supported_types = [tf.float16]
        if name in ("static", "int8"):
            converter.representative_dataset = faces
        if name == "int8":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        (folder / f"{name}.tflite").write_bytes(converter.convert())
    return {path.name: path for path in folder.iterdir()}


EXACT = ("two.keras", "two", "three.keras", "three.h5", "three", "float.tflite", "half.tflite")
ROUNDED = ("dynamic.tflite", "static.tflite", "int8.tflite")


@pytest.mark.parametrize("name", [*EXACT, *ROUNDED])
def test_every_format_is_exported_to_the_same_few_nodes(sources: dict[str, Path], name: str, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    done = export(sources[name], output, list, preset_name="insightface-arcface", changes=Changes())
    assert done.card.parity["random_cosine_min"] >= (0.99999 if name in EXACT else 0.99)
    model = onnx.load(output)
    assert {node.op_type for node in model.graph.node} == LEAN
    assert len(model.graph.node) == 21
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [1, 1]
    session = SharedSession(output)
    assert session.run({session.inputs[0]: np.zeros((5, 3, 112, 112), np.float32)})[0].shape == (5, 16)


@pytest.mark.parametrize("name", ["two.keras", "three.keras", "two", "three", "float.tflite", "int8.tflite"])
def test_the_layer_at_which_networks_part_is_named_for_every_framework(
    sources: dict[str, Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convert.export.simplify", broken)
    with pytest.raises(ParityError, match=r"They part at the layer \S*conv3_block1_(1_prelu|2_pad)"):
        export(sources[name], tmp_path / "x.onnx", list, preset_name="insightface-arcface", changes=Changes())
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("framework", [tf_keras, keras], ids=["keras 2", "keras 3"])
def test_weights_in_the_layout_of_keras_3_are_those_of_the_model(framework: Any, tmp_path: Path) -> None:
    path = tmp_path / "arcface.weights.h5"
    written, read = randomised(build_arcface(framework, STACKS, 16)), build_arcface(tf_keras, STACKS, 16)
    written.save_weights(path)
    load_weights(read, read_layered_weights(path, read), path.name)
    picture = np.random.default_rng(0).normal(size=(1, 112, 112, 3)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(read(picture)), np.asarray(written(picture)), rtol=1e-4, atol=1e-4)
    other = build_arcface(tf_keras, ((8, 1), (16, 1)), 16)
    with pytest.raises(WeightsError, match=r"layer \d+ should be conv3_block1_1_conv with .*, the file has conv2d_\d"):
        load_weights(other, read_layered_weights(path, other), path.name)


def test_code_in_a_legacy_model_is_not_run(tmp_path: Path, capsys: Any) -> None:
    canary = tmp_path / "canary"
    picture = tf_keras.Input((112, 112, 3))
    code = tf_keras.layers.Lambda(lambda x, file=str(canary): (__import__("os").system(f"touch {file}"), x)[1])(picture)
    path = tmp_path / "code.h5"
    tf_keras.Model(picture, tf_keras.layers.GlobalAveragePooling2D()(code)).save(path, save_format="h5")
    canary.unlink(missing_ok=True)
    command = ["export", "--weights", str(path), "--output", str(tmp_path / "x.onnx")]
    assert main([*command, "--preset", "insightface-arcface"]) == 2
    assert "the layer lambda is Lambda" in capsys.readouterr().err
    assert not canary.exists()


def test_a_saved_model_that_writes_files_is_refused(tmp_path: Path, capsys: Any) -> None:
    import tensorflow as tf

    canary = tmp_path / "canary"

    class Writer(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 112, 112, 3])])
        def __call__(self, picture: Any) -> Any:
            tf.io.write_file(str(canary), "written")
            return tf.reduce_mean(picture, [1, 2])

    tf.saved_model.save(Writer(), str(tmp_path / "writer"))
    command = ["export", "--weights", str(tmp_path / "writer"), "--output", str(tmp_path / "x.onnx")]
    assert main([*command, "--preset", "insightface-arcface"]) == 2
    assert "would touch files of this machine (WriteFile)" in capsys.readouterr().err
    assert not canary.exists()


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
    assert {node.op_type for node in onnx.load(output).graph.node} == LEAN
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


def broken(raw: onnx.ModelProto) -> onnx.ModelProto:
    """The passes, and one that breaks the third rectifier."""
    model = simplify(raw)
    slopes = [node for node in model.graph.node if node.op_type == "PRelu"]
    tensor = next(t for t in model.graph.initializer if t.name == slopes[2].input[1])
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + 3, tensor.name))
    return model


def test_networks_that_differ_are_not_written_and_the_layer_is_named(
    whole_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that breaks a layer is what parity is there for."""
    monkeypatch.setattr("convert.export.simplify", broken)
    output = tmp_path / "x.onnx"
    with pytest.raises(ParityError, match="layer conv3_block1_1_prelu"):
        export(whole_model, output, list, preset_name="insightface-arcface", changes=Changes())
    assert not output.exists()
