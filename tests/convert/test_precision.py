"""``python -m convert export --precision``: what is written, for whom, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import convert
from onnx import TensorProto, helper, numpy_helper

from convert.repair import with_card
from matchers.base import GalleryFace
from matchers.errors import GalleryError
from matchers.pgvector import PgvectorStore
from models.__main__ import main as models_main
from models.card import load_card
from models.settings import Settings
from models.verify import verify_model
from runtime.decode import decode
from runtime.embed import Embedder
from runtime.engine import open_engine
from runtime.session import SharedSession


@dataclass(frozen=True)
class Run:
    """One run of the command."""

    path: Path
    result: subprocess.CompletedProcess[str]
    report: Path

    @property
    def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.result.stdout)
        return answer


def export(folder: Path, models_dir: Path, weights: Path, precision: str, *options: object) -> Run:
    path, report = folder / "out" / "x.onnx", folder / "report.json"
    files = ("--weights", weights, "--output", path, "--report", report, "--models-dir", models_dir)
    return Run(path, convert("export", *files, "--precision", precision, "--json", *options), report)


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, shared: Path) -> Run:
    """SFace in int8, judged by eight people."""
    options = ("--images", shared / "faces" / "bbt", "--crops", "6")
    return export(tmp_path_factory.mktemp("int8"), models_dir, models_dir / "sface.onnx", "int8", *options)


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Path:
    """A network whose numbers are large and differ little, so that 8 bits lose what tells faces apart.

    The convolution in the middle loses it also where the first and the last layer stay in float.
    """
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(8, 3, 16, 16)) / 1e7,
        "b": np.full(8, 1.0),
        "same": np.eye(8).reshape(8, 8, 1, 1),
        "v": random.normal(size=(16, 8 * 7 * 7)),
    }
    weights["c"] = -weights["v"].sum(axis=1)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], strides=[16, 16]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "same"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "c"], ["y"], transB=1),
    ]
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, ["n", 3, 112, 112])]
    outputs = [value("y", TensorProto.FLOAT, ["n", 16])]
    constants = [numpy_helper.from_array(part.astype(np.float32), name) for name, part in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    card = replace(load_card(models_dir / "sface.onnx"), name="coarse", dimension=16, space="coarse-space")
    path = tmp_path_factory.mktemp("coarse") / "coarse.onnx"
    path.write_bytes(with_card(model, card))
    return path


def face(embedding: np.ndarray) -> GalleryFace:
    return GalleryFace("amy", "amy/1.jpg", "", embedding, (0, 0, 10, 10))


def test_int8_passes_its_gates_and_says_how(int8: Run, models_dir: Path) -> None:
    assert int8.result.returncode == 0, int8.result.stderr
    fp32, card = load_card(models_dir / "sface.onnx"), load_card(int8.path)
    figures = int8.answer["figures"]
    assert json.loads(int8.report.read_text()) == figures
    assert all(gate["holds"] for gate in figures["gates"])
    assert len(figures["gates"]) == 5
    assert {one["ranges"] for one in figures["candidates"]} >= {"min-max", "percentile 99.99", "entropy"}
    assert card.precision == "int8"
    assert card.measured["cosine_mean"] == pytest.approx(figures["measured"]["cosine_mean"])
    assert card.parity["cosine_mean"] >= 0.97
    assert "6 crops of" in str(card.measured["calibration"])
    assert "80 pairs of one person, 700 of two" in str(card.measured["identities"])
    assert int8.path.stat().st_size < (models_dir / "sface.onnx").stat().st_size / 3
    assert (card.origin_sha256, card.threshold) == (fp32.origin_sha256, fp32.threshold)
    assert verify_model(int8.path) == []
    assert "int8" in figures["sentences"][0]


def test_every_way_that_was_tried_is_shown(int8: Run) -> None:
    shown = int8.result.stderr
    assert shown.count("cosine to fp32") >= 10
    assert "1 layer in float" in shown
    assert "4 layers in float" in shown
    assert "TAR at FAR 0.0014, int8 against an fp32 gallery" in shown


def test_an_int8_file_that_passed_searches_the_fp32_galleries(int8: Run, models_dir: Path, postgres: str) -> None:
    fp32, card = load_card(models_dir / "sface.onnx"), load_card(int8.path)
    assert card.space != fp32.space
    assert (card.name, card.gallery_space) == (fp32.name, fp32.space)
    row = np.eye(1, 128, dtype=np.float32)[0]
    named = {"name": "precision_test"}
    with PgvectorStore(postgres, replace(fp32, **named), 10) as store:
        store.apply("office", [face(row)], [])
    with PgvectorStore(postgres, replace(card, **named), 10) as store:
        assert store.search(row[None], "office", None, 1)[0][0].person == "amy"
    refused = replace(card, compatible_space="", **named)
    with (
        PgvectorStore(postgres, refused, 10) as store,
        pytest.raises(GalleryError, match="embeddings of another model"),
    ):
        store.search(row[None], "office", None, 1)


def test_int8_embeddings_are_those_of_fp32_nearly_and_of_any_batch(int8: Run, models_dir: Path, shared: Path) -> None:
    settings = Settings(_env_file=None, models_dir=models_dir, execution_provider="cpu")
    engine = open_engine(settings)
    quantised = Embedder(SharedSession(int8.path))
    crops = []
    for path in sorted((shared / "faces" / "bbt").glob("*/*.png")):
        image = decode(path.read_bytes())
        crops.append(engine.embedder.align(image, engine.detector.detect(image))[:1])
    faces = np.concatenate(crops)
    expected = quantised.embed(faces)
    assert (expected * engine.embedder.embed(faces)).sum(axis=1).mean() >= 0.97
    for size in (1, 2, 3, 4, 6, 8, 32, 40):
        np.testing.assert_allclose(quantised.embed(faces[:size]), expected[:size], atol=1e-5)
    starts = range(0, 32, 3)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(quantised.embed, [faces[start : start + 5] for start in starts]))
    for start, answer in zip(starts, answers, strict=True):
        np.testing.assert_allclose(answer, expected[start : start + 5], atol=1e-5)


def test_the_card_is_shown(int8: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert models_main(["show", str(int8.path)]) == 0
    shown = capsys.readouterr().out
    for title in ("measured calibration", "measured cross_test", "measured speed_up", "compatible_space"):
        assert title in shown


def test_a_quantised_network_is_not_quantised_again(int8: Run, models_dir: Path, tmp_path: Path) -> None:
    again = export(tmp_path, models_dir, int8.path, "int8")
    assert again.result.returncode == 2
    assert "is no fp32 network any more" in again.result.stderr
    assert not again.path.exists()


def test_a_network_that_loses_too_much_is_not_written(coarse: Path, models_dir: Path, tmp_path: Path) -> None:
    refused = export(tmp_path, models_dir, coarse, "int8", "--crops", "4")
    assert refused.result.returncode == 2
    assert "int8 loses too much: mean cosine to fp32" in refused.result.stderr
    assert not refused.path.parent.exists()
    assert not json.loads(refused.report.read_text())["gates"][0]["holds"]
    assert refused.answer["status"] == "error"


def test_force_writes_it_for_galleries_of_its_own(coarse: Path, models_dir: Path, tmp_path: Path) -> None:
    forced = export(tmp_path, models_dir, coarse, "int8", "--crops", "4", "--force")
    assert forced.result.returncode == 0, forced.result.stderr
    card = load_card(forced.path)
    assert (card.name, card.compatible_space) == ("coarse-int8", "")
    assert card.gallery_space.startswith("coarse-space-int8-")
    assert "failed, written with --force" in str(card.measured["gates"])
    assert "galleries of coarse are not searched" in str(card.measured["cross_test"])
    assert any("differs from its source" in problem for problem in verify_model(forced.path))


def test_fp16_is_the_same_network_at_half_the_size(models_dir: Path, tmp_path: Path, group_picture: Path) -> None:
    run = export(tmp_path, models_dir, models_dir / "sface.onnx", "fp16", "--crops", "8")
    assert run.result.returncode == 0, run.result.stderr
    fp32, card = load_card(models_dir / "sface.onnx"), load_card(run.path)
    assert (card.precision, card.name, card.gallery_space) == ("fp16", fp32.name, fp32.space)
    assert card.parity["cosine_min"] >= 0.9999
    assert run.path.stat().st_size < (models_dir / "sface.onnx").stat().st_size * 0.52
    assert verify_model(run.path) == []
    model = onnx.load(run.path)
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {1}
    settings = Settings(_env_file=None, models_dir=models_dir, embedder=str(run.path), execution_provider="cpu")
    ours = open_engine(settings).analyze(group_picture.read_bytes()).embeddings
    plain = open_engine(settings.model_copy(update={"embedder": "sface"})).analyze(group_picture.read_bytes())
    np.testing.assert_allclose(ours, plain.embeddings, atol=5e-3)


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_pictures_without_faces_are_no_calibration(models_dir: Path, tmp_path: Path, precision: str) -> None:
    folder = tmp_path / "garbage"
    folder.mkdir()
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    shutil.copy(models_dir / "yunet.onnx.sha256", folder / "sum.bmp")
    run = export(tmp_path, models_dir, models_dir / "sface.onnx", precision, "--calibration", folder)
    assert run.result.returncode == 2
    assert "No face was found in the 3 pictures" in run.result.stderr
    assert "Traceback" not in run.result.stderr
    assert not run.path.parent.exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("retinaface.onnx", ("int8",), "--precision is for embedders"),
        ("sface.onnx", ("fp32",), "--precision int8 or fp16"),
        ("sface.onnx.sha256", ("int8",), "holds no weights that are known"),
        ("missing.onnx", ("int8",), "does not exist"),
        ("sface.onnx", ("int8", "--pairs", "pairs.txt"), "say with --images DIR"),
    ],
)
def test_what_cannot_be_is_said(
    models_dir: Path, tmp_path: Path, name: str, options: tuple[str, ...], message: str
) -> None:
    run = export(tmp_path, models_dir, models_dir / name, *options)
    assert run.result.returncode == 2
    assert message in run.result.stderr
    assert not run.path.parent.exists()


def test_the_source_is_not_overwritten(models_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "sface.onnx"
    shutil.copy(models_dir / "sface.onnx", source)
    run = export(tmp_path, models_dir, source, "int8", "--output", source)
    assert run.result.returncode == 2
    assert "Name another with --output" in run.result.stderr
    assert source.read_bytes() == (models_dir / "sface.onnx").read_bytes()


def test_help_teaches_the_gates() -> None:
    shown = convert("export", "--help").stdout
    assert all(word in shown for word in ("0.97", "0.2 points", "EMBEDDER", "--calibration", "examples:"))
