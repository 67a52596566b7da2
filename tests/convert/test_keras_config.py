"""A whole model that would run code as it is loaded is refused by its description, before Keras sees it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from convert.errors import WeightsError
from convert.keras_config import keras_version
from convert.weights import Kind, recognise
from tests.convert.damage import damage_member

h5py = pytest.importorskip("h5py")


def described(*layers: dict[str, Any]) -> dict[str, Any]:
    """A model of an input and ``layers``, as Keras describes it."""
    first = {"class_name": "InputLayer", "config": {"name": "input_1"}, "name": "input_1"}
    return {"class_name": "Functional", "config": {"name": "model", "layers": [first, *layers]}}


def layer(class_name: str, module: str | None = None, **config: Any) -> dict[str, Any]:
    value = {"class_name": class_name, "config": config, "name": "suspect"}
    return value | ({"module": module} if module else {})


def hdf5(path: Path, config: Any, version: str = "2.19.0") -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
        file.attrs["keras_version"] = version
    return path


def archive(path: Path, config: Any, version: str = "3.15.1") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("metadata.json", json.dumps({"keras_version": version}))
        file.writestr("model.weights.h5", b"")
    return path


HARMLESS = (
    layer(
        "Conv2D", filters=8, kernel_initializer={"class_name": "Zeros", "module": "keras.initializers", "config": {}}
    ),
    layer("TFOpLambda", function="math.l2_normalize"),
    layer("Multiply", "keras.src.ops.numpy"),
    layer("Dense", "keras.layers", dtype={"class_name": "DTypePolicy", "module": "keras", "config": {}}),
    layer("Activation", "keras.layers", activation={"class_name": "function", "module": "builtins", "config": "relu"}),
    layer("Functional", "tf_keras.src.engine.functional", layers=[]),
    layer("Functional", "keras.src.models.functional", layers=[]),
)
SUSPECT = (
    (layer("Lambda", function=["code", None, None]), "Lambda"),
    (layer("Lambda", "keras.layers", function={"class_name": "__lambda__", "config": {"code": "4wAA"}}), "Lambda"),
    (layer("Dense", activation={"class_name": "__lambda__", "config": {"code": "4wAA"}}), "__lambda__"),
    (layer("TFSMLayer", "keras.layers", filepath="/elsewhere"), "TFSMLayer"),
    (layer("TFOpLambda", function="io.write_file"), "io.write_file"),
    (layer("Popen", "subprocess", args=["id"]), "Popen of subprocess"),
    (layer("enable_unsafe_deserialization", "keras.config"), "enable_unsafe_deserialization"),
    (layer("Dense", activation={"class_name": "function", "module": "os", "config": "system"}), "function of os"),
    (layer("function", "keras.utils.file_utils", name="get_file"), "function of keras.utils.file_utils"),
    (layer("load_model", "keras.models"), "load_model of keras.models"),
    (layer("Sequential", "keras.layersX"), "Sequential of keras.layersX"),
)


@pytest.mark.parametrize("suspect", HARMLESS, ids=lambda one: one["class_name"])
def test_layers_that_compute_are_let_through(suspect: dict[str, Any], tmp_path: Path) -> None:
    assert keras_version(hdf5(tmp_path / "m.h5", described(suspect)), Kind.LEGACY_MODEL) == 2
    assert keras_version(archive(tmp_path / "m.keras", described(suspect)), Kind.KERAS_MODEL) == 3


@pytest.mark.parametrize(("suspect", "named"), SUSPECT, ids=[named for _, named in SUSPECT])
def test_layers_that_would_run_code_are_refused_by_name(suspect: dict[str, Any], named: str, tmp_path: Path) -> None:
    nested = described(layer("Functional", layers=[layer("ReLU"), suspect]))
    for path, kind in (
        (hdf5(tmp_path / "m.h5", nested), Kind.LEGACY_MODEL),
        (archive(tmp_path / "m.keras", nested), Kind.KERAS_MODEL),
    ):
        with pytest.raises(WeightsError, match=f"run code.*the layer suspect is .*{named}"):
            keras_version(path, kind)


def test_the_version_is_the_one_that_wrote_the_file(tmp_path: Path) -> None:
    assert keras_version(hdf5(tmp_path / "three.h5", described(), "3.4.1"), Kind.LEGACY_MODEL) == 3
    assert keras_version(archive(tmp_path / "two.keras", described(), "2.19.0"), Kind.KERAS_MODEL) == 2


def test_a_description_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="damaged Keras model"):
        keras_version(hdf5(tmp_path / "m.h5", "{not json"), Kind.LEGACY_MODEL)
    with pytest.raises(WeightsError, match="described by something else"):
        keras_version(hdf5(tmp_path / "n.h5", described({"class_name": ["Lambda"]})), Kind.LEGACY_MODEL)


@pytest.mark.parametrize("damage", ["packed bytes", "compression", "encryption"])
def test_an_archive_that_cannot_be_unpacked_is_said(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", json.dumps(described()))
        file.writestr("model.weights.h5", b"")
    assert recognise(path) is Kind.KERAS_MODEL
    damage_member(path, damage)
    with pytest.raises(WeightsError, match=r"damaged \.keras file"):
        recognise(path)
    with pytest.raises(WeightsError, match="damaged Keras model"):
        keras_version(path, Kind.KERAS_MODEL)


def test_a_description_that_is_nested_too_deep_is_said(tmp_path: Path) -> None:
    nested = "[" * 50_000
    with pytest.raises(WeightsError, match="damaged Keras model"):
        keras_version(hdf5(tmp_path / "m.h5", nested), Kind.LEGACY_MODEL)
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", nested)
        file.writestr("model.weights.h5", b"")
    with pytest.raises(WeightsError, match=r"damaged \.keras file"):
        recognise(path)


@pytest.mark.parametrize("member", ["config.json", "metadata.json"])
def test_a_description_longer_than_any_is_not_unpacked(member: str, tmp_path: Path) -> None:
    members = {"config.json": json.dumps(described()), "metadata.json": "{}", "model.weights.h5": ""}
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in {**members, member: " " * (64 * 2**20) + "{}"}.items():
            file.writestr(name, text)
    with pytest.raises(WeightsError, match=f"{member} has more than"):
        keras_version(path, Kind.KERAS_MODEL)
