"""Weights of Keras opened as networks of TensorFlow, and the other frameworks' files handed to their modules.

TensorFlow is imported inside functions of this module, :mod:`convert.saved_model` and :mod:`convert.tflite` only.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from convert.arcface import build_arcface, load_weights, read_layered_weights, read_legacy_weights
from convert.errors import INSTALL, ConvertError, WeightsError
from convert.framework import INPUT, Array, Layer, Source, first_line, from_function, silent
from convert.keras_config import keras_version
from convert.saved_model import SavedModelSource
from convert.tflite import TfliteSource
from convert.weights import Kind


def open_source(path: Path, kind: Kind) -> Source:
    """The network of ``path``.

    Raises:
        ConvertError: TensorFlow is not installed, or the file is damaged or of another network.
    """
    _prepare()
    with silent(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _open(path, kind)


def _open(path: Path, kind: Kind) -> Source:
    match kind:
        case Kind.LEGACY_WEIGHTS | Kind.KERAS3_WEIGHTS:
            return _arcface(path, kind)
        case Kind.LEGACY_MODEL | Kind.KERAS_MODEL:
            return _whole_model(path, kind)
        case Kind.SAVED_MODEL:
            return SavedModelSource(path)
        case Kind.TFLITE:
            return TfliteSource(path)
    raise WeightsError(f"{path} is {kind} already.")


@dataclass(slots=True)
class KerasSource:
    """A Keras model, of Keras 2 or 3."""

    model: Any
    what: str
    exact: bool = True

    def run(self, pictures: Array) -> Array:
        """See :class:`Source`."""
        return np.asarray(self.model(pictures, training=False), np.float32)

    def layers(self, pictures: Array) -> Iterator[Layer]:
        """See :class:`Source`."""
        kept = [layer for layer in self.model.layers if type(layer).__name__ != "InputLayer"]
        outputs = type(self.model)(self.model.inputs, [layer.output for layer in kept])(pictures, training=False)
        for layer, output in zip(kept, outputs, strict=True):
            inputs = layer.input if isinstance(layer.input, list) else [layer.input]
            yield Layer(
                layer.name, [tensor._keras_history[0].name for tensor in inputs], np.asarray(output, np.float32)
            )

    def to_onnx(self) -> onnx.ModelProto:
        """See :class:`Source`."""
        import tensorflow as tf  # noqa: PLC0415

        shape = (None, *self.model.inputs[0].shape[1:])
        graph = tf.function(lambda pictures: self.model(pictures, training=False))
        signature = [tf.TensorSpec(shape, tf.float32, name=INPUT)]
        return from_function(graph, signature)


def _prepare() -> None:
    """Quiet, on CPU, with Keras 2 where TensorFlow looks for Keras."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    try:
        with silent():
            import tensorflow  # noqa: F401, PLC0415
            import tf2onnx  # noqa: PLC0415
    except ImportError as error:
        raise ConvertError(f"{error.name or 'tensorflow'} is not installed. {INSTALL}") from error
    tf2onnx.logging.set_level(logging.ERROR)


def _arcface(path: Path, kind: Kind) -> KerasSource:
    import tf_keras  # noqa: PLC0415

    model = build_arcface(tf_keras)
    weights = read_legacy_weights(path) if kind is Kind.LEGACY_WEIGHTS else read_layered_weights(path, model)
    load_weights(model, weights, path.name)
    return KerasSource(model, f"DeepFace's ArcFace (ResNet-34), {kind}")


def _whole_model(path: Path, kind: Kind) -> KerasSource:
    import keras  # noqa: PLC0415
    import tf_keras  # noqa: PLC0415

    loader = keras if keras_version(path, kind) == 3 else tf_keras
    try:
        model = loader.models.load_model(str(path), compile=False, safe_mode=True)
    except Exception as error:
        raise WeightsError(f"{path} cannot be loaded as {kind}: {first_line(error)}.") from error
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise WeightsError(_not_one(path, len(model.inputs), len(model.outputs)))
    return KerasSource(model, f"{kind}".removeprefix("a "))


def _not_one(path: Path, inputs: int, outputs: int) -> str:
    return f"{path} has {inputs} inputs and {outputs} outputs; one picture in and one embedding out are needed."
