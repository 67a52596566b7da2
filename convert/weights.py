"""What kind of weights a file holds, told by its content."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convert.errors import INSTALL, ConvertError, WeightsError

if TYPE_CHECKING:
    import h5py


class Kind(StrEnum):
    """Kinds of weights that can be exported."""

    LEGACY_WEIGHTS = "legacy Keras weights (.h5)"
    KERAS3_WEIGHTS = "Keras 3 weights (.weights.h5)"
    RETINAFACE = "retina-face's weights of RetinaFace, ResNet-50 (.h5)"
    LEGACY_MODEL = "a legacy Keras model (.h5)"
    KERAS_MODEL = "a Keras model (.keras)"
    SAVED_MODEL = "a SavedModel folder"
    TFLITE = "a TensorFlow Lite model (.tflite)"
    ONNX = "an ONNX network"


MAX_JSON_BYTES = 64 * 1024**2
"""What a ``.keras`` file may say about its model."""

# What readers of HDF5, zip and JSON raise for damaged and hostile files. A RuntimeError is a broken tree of HDF5, an
# encrypted member, an unknown compression, or JSON nested too deep.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)

RETINAFACE_LAYER = "face_rpn_cls_score_stride32"
"""A layer by whose name weights of RetinaFace are known."""

_ADVICE = (
    "Weights of Keras (.h5, .weights.h5, .keras), a SavedModel folder, a TensorFlow Lite model or an ONNX network "
    "with a card can be exported."
)
_HDF5, _ZIP, _TFLITE = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"TFL3"


def recognise(path: Path) -> Kind:
    """The kind of ``path``, whatever it is called.

    Raises:
        WeightsError: it is missing, cut off, or none of them.
    """
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return Kind.SAVED_MODEL
        raise WeightsError(f"{path} is a folder without saved_model.pb. {_ADVICE}")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except FileNotFoundError as error:
        raise WeightsError(f"{path} does not exist. Check the path.") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    if head == _HDF5:
        return _hdf5_kind(path)
    if head.startswith(_ZIP):
        return _zip_kind(path)
    if head[4:] == _TFLITE:
        return Kind.TFLITE
    if _is_onnx(path):
        return Kind.ONNX
    raise WeightsError(f"{path} holds no weights that are known: it begins with {head!r}. {_ADVICE}")


@contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """While ``path`` is read, by us or by HDF5 and zip.

    Args:
        what: it ought to be.

    Raises:
        WeightsError: in place of whatever these raise for a damaged file.
    """
    try:
        yield
    except _DAMAGED as error:
        raise WeightsError(f"{path} is a damaged {what}: {str(error)[:200]}. Get it again.") from error


def open_hdf5(path: Path) -> h5py.File:
    """The HDF5 file ``path``, open for reading.

    Raises:
        WeightsError: it is damaged.
    """
    try:
        import h5py  # noqa: PLC0415
    except ImportError as error:
        raise ConvertError(f"{path} is an HDF5 file and h5py is not installed. {INSTALL}") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise WeightsError(
            f"{path} is an HDF5 file that cannot be read; most likely it is cut off: {str(error)[:200]}. "
            "Download it again and compare its sha256 (`python -m models list`)."
        ) from error


def _hdf5_kind(path: Path) -> Kind:
    with readable(path, "Keras file"), open_hdf5(path) as file:
        if "model_config" in file.attrs:
            return Kind.LEGACY_MODEL
        if "layer_names" in file.attrs:
            return Kind.RETINAFACE if _names_layer(file, RETINAFACE_LAYER) else Kind.LEGACY_WEIGHTS
        if "layers" in file or "_layer_checkpoint_dependencies" in file:
            return Kind.KERAS3_WEIGHTS
        raise WeightsError(f"{path} is an HDF5 file, but none that Keras wrote: it names no layers. {_ADVICE}")


def _names_layer(file: h5py.File, name: str) -> bool:
    return any(found in (name, name.encode()) for found in file.attrs["layer_names"])


def _zip_kind(path: Path) -> Kind:
    with readable(path, ".keras file"), zipfile.ZipFile(path) as archive:
        if {"config.json", "model.weights.h5"} <= set(archive.namelist()):
            json_member(archive, "config.json")
            return Kind.KERAS_MODEL
    raise WeightsError(f"{path} is a zip archive, but no .keras model: it has no config.json. {_ADVICE}")


def json_member(archive: zipfile.ZipFile, name: str) -> Any:
    """What a member of a ``.keras`` file says; to be called in :func:`readable`."""
    if archive.getinfo(name).file_size > MAX_JSON_BYTES:
        raise ValueError(f"{name} has more than {MAX_JSON_BYTES:,} bytes")
    return json.loads(archive.read(name))


def _is_onnx(path: Path) -> bool:
    import onnx  # noqa: PLC0415

    try:
        model: Any = onnx.load_model(path, load_external_data=False)
    except Exception:
        return False
    return bool(model.graph.node) and bool(model.opset_import)
