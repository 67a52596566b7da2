"""``python -m convert adopt`` as it is run: files that fit get a card, all others are refused with nothing written."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import convert
from onnx import TensorProto, helper, numpy_helper

from models.card import load_card
from models.presets import PRESETS, fed_as, find_preset, fit_preset
from models.settings import Settings
from models.verify import verify_model
from runtime.engine import open_engine

Adopt = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def adopt(models_dir: Path, tmp_path: Path) -> Adopt:
    """Runs the command; its output is ``out/x.onnx`` unless the arguments say otherwise."""

    def run(file: Path, preset: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        files = (file, "--output", tmp_path / "out" / "x.onnx", "--models-dir", models_dir)
        return convert("adopt", *files, "--preset", preset, *arguments)

    return run


def embedder(path: Path, weight: np.ndarray, shape: Sequence[Any] = (1, 3, 8, 8), bias: float = 0) -> Path:
    """A network that multiplies its pixels by one matrix."""
    width = weight.shape[0]
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["y"])]
    values = {"w": weight.astype(np.float32), "b": np.full(weight.shape[1], bias, np.float32)}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, weight.shape[1]])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    assert np.prod(shape[1:]) == width
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_an_embedder_gets_a_card_and_recognises(
    adopt: Adopt, models_dir: Path, tmp_path: Path, group_picture: Path
) -> None:
    source = tmp_path / "theirs.onnx"
    shutil.copy(models_dir / "sface.onnx", source)
    before = source.read_bytes()
    result = adopt(source, "sface", "--json", "--name", "mine", "--threshold", "0.5", "--licence", "Apache-2.0")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    path = tmp_path / "out" / "x.onnx"
    card = load_card(path)
    assert (answer["status"], answer["path"]) == ("success", str(path))
    assert "two people at least" in answer["checks"][0]
    assert (card.name, card.threshold, card.threshold_origin) == ("mine", 0.5, "given on the command line")
    assert card.space.startswith("mine-")
    assert card.origin == "theirs.onnx"
    assert verify_model(path) == []
    assert source.read_bytes() == before
    settings = Settings(_env_file=None, models_dir=models_dir, embedder=str(path), execution_provider="cpu")
    ours = open_engine(settings.model_copy(update={"embedder": "sface"})).analyze(group_picture.read_bytes())
    theirs = open_engine(settings).analyze(group_picture.read_bytes())
    np.testing.assert_allclose(theirs.embeddings, ours.embeddings, atol=1e-5)


def test_a_detector_gets_a_card(adopt: Adopt, shared: Path, tmp_path: Path) -> None:
    result = adopt(shared / "models" / "scrfd_500m_kps.onnx", "insightface-scrfd")
    assert result.returncode == 0, result.stderr
    card = load_card(tmp_path / "out" / "x.onnx")
    assert (card.task, card.family, card.input_size) == ("detection", "scrfd", (640, 640))
    assert card.parity["cosine_min"] >= 0.99999
    assert verify_model(tmp_path / "out" / "x.onnx") == []


def test_a_detector_that_is_read_wrongly_is_refused(adopt: Adopt, shared: Path, tmp_path: Path) -> None:
    """It has as many outputs as the preset says, but they are laid out otherwise."""
    result = adopt(shared / "models" / "scrfd_500m_kps.onnx", "insightface-retinaface")
    assert result.returncode == 2
    assert "cannot be read as insightface-retinaface" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_that_does_not_fit_is_told_what_it_fits(adopt: Adopt, models_dir: Path, tmp_path: Path) -> None:
    result = adopt(models_dir / "sface.onnx", "deepface-arcface", "--json")
    assert result.returncode == 2
    assert "It gives 128 numbers a face, not 512." in result.stderr
    assert "It fits insightface-arcface, sface." in result.stderr
    assert json.loads(result.stdout)["status"] == "error"
    assert not (tmp_path / "out").exists()


def test_a_network_that_sees_nothing_in_faces_is_refused(adopt: Adopt, tmp_path: Path, group_picture: Path) -> None:
    """Its bias drowns the picture, so all faces fall on one point."""
    weight = np.random.default_rng(0).normal(size=(192, 4)) * 1e-6
    result = adopt(embedder(tmp_path / "blind.onnx", weight, bias=1), "insightface-arcface")
    assert result.returncode == 2
    assert "does not tell faces apart" in result.stderr
    assert not (tmp_path / "out").exists()


def test_one_face_is_not_enough_to_tell_faces_apart(
    adopt: Adopt, models_dir: Path, shared: Path, tmp_path: Path
) -> None:
    shutil.copy(shared / "faces" / "bbt" / "amy" / "amy1.png", tmp_path)
    result = adopt(models_dir / "sface.onnx", "sface", "--images", tmp_path)
    assert result.returncode == 2
    assert "two faces are needed" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"just text\n", "is no ONNX file. Weights of Keras"), (b"", "no ONNX")],
)
def test_what_is_no_network_is_refused(adopt: Adopt, tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "weights.onnx"
    if content is not None:
        path.write_bytes(content)
    result = adopt(path, "sface")
    assert result.returncode == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_original_is_not_overwritten(adopt: Adopt, models_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    shutil.copy(models_dir / "sface.onnx", path)
    result = adopt(path, "sface", "--output", path)
    assert result.returncode == 2
    assert "Name another with --output" in result.stderr


def test_a_file_that_the_service_would_not_take_for_one_is_not_written(adopt: Adopt, tmp_path: Path) -> None:
    result = adopt(tmp_path / "x.onnx", "sface", "--output", tmp_path / "out.model")
    assert result.returncode == 2
    assert "out.model' does not end in .onnx" in result.stderr


def test_an_unknown_preset_lists_the_known_ones(adopt: Adopt, tmp_path: Path) -> None:
    result = adopt(tmp_path / "x.onnx", "arcface")
    assert result.returncode == 2
    assert all(preset.name in result.stderr for preset in PRESETS)


def test_help_teaches_every_preset() -> None:
    shown = convert("adopt", "--help").stdout
    assert all(preset.name in shown for preset in PRESETS)
    assert "EMBEDDER" in shown


@pytest.mark.parametrize("operators", [("Sub", "Mul"), ("Sub",), ("Conv",)])
def test_a_graph_that_normalises_its_input_is_known_by_its_first_nodes(operators: Sequence[str]) -> None:
    nodes = [helper.make_node(operator, ["x", "w"], ["y"]) for operator in operators]
    preset = fed_as(find_preset("insightface-arcface"), helper.make_graph(nodes, "g", [], []))
    assert (preset.mean == (0, 0, 0)) == (len(operators) == 2)


def test_presets_say_where_a_network_does_not_fit() -> None:
    def value(*shape: Any) -> list[dict[str, Any]]:
        return [{"name": "x", "type": "tensor(float)", "shape": list(shape)}]

    by_name = {preset.name: preset for preset in PRESETS}
    deepface, scrfd = by_name["deepface-arcface"], by_name["insightface-scrfd"]
    assert fit_preset(deepface, value("n", 112, 112, 3), value("n", 512)) == []
    assert "112 x 96" in fit_preset(deepface, value("n", 96, 112, 3), value("n", 512))[0]
    assert "128 numbers" in fit_preset(deepface, value("n", 112, 112, 3), value("n", 128))[0]
    assert "no fixed width" in fit_preset(by_name["insightface-arcface"], value("n", 3, "h", "w"), value("n", 512))[0]
    assert fit_preset(scrfd, value(1, 3, "h", "w"), value(1) * 9) == []
    assert "It has 3 outputs" in fit_preset(scrfd, value(1, 3, "h", "w"), value(1) * 3)[0]
    assert "2 inputs" in fit_preset(scrfd, value(1, 3, 4, 4) * 2, value(1) * 9)[0]
