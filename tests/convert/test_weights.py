"""What a file of weights is, told by its content; what it is not, told with what to do."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convert.__main__ import main
from convert.arcface import read_layered_weights
from convert.errors import WeightsError
from convert.weights import Kind, recognise

h5py = pytest.importorskip("h5py")


def hdf5(path: Path, **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in attributes.items():
            file.attrs[name] = value
        file.create_dataset("padding", data=np.zeros(50_000))
    return path


def test_each_kind_is_told_by_its_content_whatever_it_is_called(tmp_path: Path, models_dir: Path) -> None:
    archive = tmp_path / "model.txt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.json", json.dumps({}))
        file.writestr("model.weights.h5", b"")
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "saved_model.pb").write_bytes(b"")
    keras3 = tmp_path / "three"
    with h5py.File(keras3, "w") as file:
        file.create_group("layers")
    lite = tmp_path / "lite"
    lite.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    assert recognise(hdf5(tmp_path / "a", layer_names=[b"conv1"])) is Kind.LEGACY_WEIGHTS
    assert recognise(hdf5(tmp_path / "b", model_config="{}", layer_names=[b"conv1"])) is Kind.LEGACY_MODEL
    assert recognise(archive) is Kind.KERAS_MODEL
    assert recognise(saved) is Kind.SAVED_MODEL
    assert recognise(keras3) is Kind.KERAS3_WEIGHTS
    assert recognise(lite) is Kind.TFLITE
    assert recognise(models_dir / "sface.onnx") is Kind.ONNX


def unusable(folder: Path) -> dict[str, Path]:
    whole = hdf5(folder / "whole.h5", layer_names=[b"conv1"])
    (folder / "cut.h5").write_bytes(whole.read_bytes()[:200_000])
    (folder / "text.h5").write_text("these are no weights")
    (folder / "zip.keras").write_bytes(b"PK\x03\x04" + bytes(50))
    (folder / "folder").mkdir()
    hdf5(folder / "other.h5", something="else")
    names = ("cut.h5", "text.h5", "zip.keras", "folder", "other.h5", "missing.h5")
    return {name: folder / name for name in names}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut.h5", "cut off"),
        ("text.h5", "no weights that are known"),
        ("zip.keras", "damaged .keras"),
        ("folder", "without saved_model.pb"),
        ("other.h5", "names no layers"),
        ("missing.h5", "does not exist"),
    ],
)
def test_what_cannot_be_exported_is_said_and_nothing_is_written(
    tmp_path: Path, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = unusable(tmp_path)[name]
    with pytest.raises(WeightsError, match=words):
        recognise(path)
    output = tmp_path / "out.onnx"
    assert main(["export", "--weights", str(path), "--output", str(output)]) == 2
    assert words in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("signature", [b"TREE", b"HEAP", b"SNOD"])
def test_damage_inside_a_file_is_said(signature: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.ones(3)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(signature, b"XXXX"))
    with pytest.raises(WeightsError, match="damaged Keras file"):
        recognise(path)
    before, _, behind = whole.rpartition(signature)
    path.write_bytes(before + b"XXXX" + behind)
    assert recognise(path) is Kind.KERAS3_WEIGHTS
    with pytest.raises(WeightsError, match="damaged Keras weights file"):
        read_layered_weights(path, SimpleNamespace(layers=[]))


def test_damaged_names_of_layers_are_said(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["conv1"]
    path.write_bytes(path.read_bytes().replace(b"GCOL", b"XXXX"))
    with pytest.raises(WeightsError, match="damaged Keras file"):
        recognise(path)
