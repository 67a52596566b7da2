"""``python -m models`` on small models made here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from models.__main__ import main
from models.card import METADATA_KEY, ModelCard
from models.store import file_sha256, sidecar

CARD = ModelCard(
    name="tiny",
    task="embedding",
    family="embedding",
    layout="NCHW",
    colour="RGB",
    mean=(0.0, 0.0, 0.0),
    scale=(1.0, 1.0, 1.0),
    input_size=(4, 4),
    dimension=48,
    alignment="similarity",
    licence="MIT",
    origin="tiny.bin",
    origin_sha256="0" * 64,
    threshold=0.5,
    parity={"cosine_min": 0.999999, "max_abs_diff": 1e-6},
)


def save(folder: Path, card: ModelCard | None = CARD, shape: tuple[Any, ...] = ("batch", 3, 4, 4)) -> Path:
    """An embedder that hands out its pixels."""
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], 48])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if card is not None:
        helper.set_model_props(model, {METADATA_KEY: card.to_json()})
    path = folder / "tiny.onnx"
    onnx.save(model, path)
    sidecar(path).write_text(f"{file_sha256(path)}  tiny.onnx\n")
    return path


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, str, str]:
    status = main([*arguments, "--models-dir", str(folder)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_list_shows_the_catalog_and_what_else_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path)
    status, out, _ = run(capsys, tmp_path, "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert status == 0
    assert rows["sface"]["state"] == "no"
    assert rows["sface"]["licence"] == "Apache-2.0"
    assert rows["tiny"] | {"path": "", "bytes": 0} == {
        "name": "tiny",
        "role": "embedder",
        "state": "yes",
        "bytes": 0,
        "threshold": 0.5,
        "packs": [],
        "licence": "MIT",
        "about": "",
        "path": "",
    }
    status, out, _ = run(capsys, tmp_path, "list")
    assert "non-commercial research only" in out


def test_list_tells_damaged_and_unverified_files_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path)
    path.write_bytes(path.read_bytes() + b"\0")
    assert json.loads(run(capsys, tmp_path, "list", "--json")[1])[-1]["state"] == "damaged"
    sidecar(path).unlink()
    assert json.loads(run(capsys, tmp_path, "list", "--json")[1])[-1]["state"] == "unverified"


def test_show_gives_card_inputs_outputs_and_sum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path)
    status, out, _ = run(capsys, tmp_path, "show", "tiny", "--json")
    answer = json.loads(out)
    assert status == 0
    assert answer["sha256"] == file_sha256(path)
    assert answer["inputs"] == [{"name": "x", "type": "tensor(float)", "shape": ["batch", 3, 4, 4]}]
    assert answer["outputs"][0]["shape"] == ["batch", 48]
    assert answer["card"]["threshold"] == 0.5
    status, out, _ = run(capsys, tmp_path, "show", str(path))
    assert status == 0
    assert file_sha256(path) in out


def test_show_of_a_missing_model_says_how_to_get_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, tmp_path, "show", "sface")
    assert status == 2
    assert "python -m convert fetch sface" in err


def test_verify_of_a_sound_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path)
    status, out, _ = run(capsys, tmp_path, "verify")
    assert status == 0
    assert out.startswith("ok")
    assert "cosine 0.999999000" in out


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({"dimension": 512}, ("batch", 3, 4, 4), "one of (n, 512) is expected"),
        ({"input_size": (112, 112)}, ("batch", 3, 4, 4), "its card says 112"),
        ({"layout": "NHWC"}, ("batch", 3, 4, 4), "has no 3 channels where NHWC has them"),
        ({"parity": {"cosine_min": 0.5}}, ("batch", 3, 4, 4), "differs from its source"),
        ({}, (1, 3, 4, 4), "Its batch is fixed at 1"),
    ],
)
def test_verify_finds_what_does_not_fit_the_card(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    shape: tuple[Any, ...],
    message: str,
) -> None:
    save(tmp_path, replace(CARD, **changes), shape)
    status, out, _ = run(capsys, tmp_path, "verify", "--json")
    (model,) = json.loads(out)["models"]
    assert status == 1
    assert any(message in problem for problem in model["problems"])


def test_verify_finds_a_changed_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"tiny.bin", b"tiny.bon"))
    status, out, _ = run(capsys, tmp_path, "verify", "tiny")
    assert status == 1
    assert f"actual {file_sha256(path)}" in out


def test_verify_finds_a_missing_card_and_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, card=None)
    status, out, _ = run(capsys, tmp_path, "verify", "tiny", "gone")
    assert status == 1
    assert "python -m convert adopt" in out
    assert "gone.onnx does not exist" in out


def test_verify_of_an_empty_folder_says_how_to_fill_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, tmp_path, "verify")
    assert status == 2
    assert "python -m convert fetch" in err
