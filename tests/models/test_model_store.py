"""A name or a path in the settings becomes a model file, or a sentence that says what to do."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import pytest

from models.card import METADATA_KEY, ModelCard
from models.errors import CardError, ModelError
from models.store import ModelStore, is_intact, recorded_sha256, sidecar

CARD = ModelCard(
    name="tiny",
    task="detection",
    family="yunet",
    layout="NCHW",
    colour="BGR",
    mean=(0.0, 0.0, 0.0),
    scale=(1.0, 1.0, 1.0),
    input_size=(0, 0),
    dimension=0,
    alignment="none",
    licence="MIT",
    origin="tiny.bin",
    origin_sha256="0" * 64,
)


def save(path: Path, card: ModelCard | None = CARD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    model = onnx.helper.make_model(onnx.helper.make_graph([], "tiny", [], []))
    if card is not None:
        onnx.helper.set_model_props(model, {METADATA_KEY: card.to_json()})
    onnx.save(model, path)
    return path


def test_a_name_and_a_path(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    inside, outside = save(tmp_path / "models" / "tiny.onnx"), save(tmp_path / "else where" / "x.onnx")
    assert store.resolve("tiny") == inside == store.path("tiny")
    assert store.resolve(str(outside)) == outside


def test_names_are_sorted_and_leave_hidden_files_out(tmp_path: Path) -> None:
    for name in ("b", "a", ".hidden"):
        save(tmp_path / f"{name}.onnx")
    assert ModelStore(tmp_path).names() == ["a", "b"]
    assert ModelStore(tmp_path / "not there").names() == []


def test_a_missing_model_tells_the_command_that_fetches_it(tmp_path: Path) -> None:
    save(tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=r"'sface' is not in .* \(there: other\).*python -m convert fetch sface"):
        ModelStore(tmp_path).resolve("sface")
    with pytest.raises(ModelError, match=r"gone\.onnx does not exist"):
        ModelStore(tmp_path).resolve(str(tmp_path / "gone.onnx"))


def test_a_model_without_card_tells_the_command_that_adopts_it(tmp_path: Path) -> None:
    save(tmp_path / "bare.onnx", card=None)
    with pytest.raises(CardError, match=r"python -m convert adopt .*bare\.onnx"):
        ModelStore(tmp_path).resolve("bare")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is a folder.*python -m convert adopt"):
        ModelStore(tmp_path).resolve(str(tmp_path))


def test_intact_means_the_bytes_that_were_written(tmp_path: Path) -> None:
    path = save(tmp_path / "tiny.onnx")
    assert not is_intact(path)
    sidecar(path).write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest().upper()}  tiny.onnx\n")
    assert is_intact(path)
    path.write_bytes(path.read_bytes() + b"\0")
    assert not is_intact(path)
    path.unlink()
    assert not is_intact(path)


def test_an_empty_sum_is_none(tmp_path: Path) -> None:
    path = save(tmp_path / "tiny.onnx")
    sidecar(path).write_text("")
    assert recorded_sha256(path) is None
