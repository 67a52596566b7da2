"""Networks of Keras, TensorFlow and TensorFlow Lite: opened, run as a reference, and turned into ONNX by tf2onnx.

The only module that imports TensorFlow, and only inside functions.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from convert.arcface import build_arcface, load_weights, read_legacy_weights
from convert.errors import INSTALL, ConvertError, WeightsError
from convert.weights import Kind

Array = npt.NDArray[np.float32]
OPSET = 17
_INPUT = "picture"


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What one layer gave; ``inputs``: names of the layers that it reads."""

    name: str
    inputs: list[str]
    output: Array


class Source(Protocol):
    """A network of another framework.

    Attributes:
        what: one line for people.
        exact: whether ONNX can compute the very same; False where the framework itself rounds to int8.
    """

    what: str
    exact: bool

    def run(self, pictures: Array) -> Array:
        """(n, h, w, 3) float32 to (n, d) float32."""
        ...

    def layers(self, pictures: Array, /) -> Iterator[Layer]:
        """Every layer's output for ``pictures``, in order; nothing where layers cannot be looked into."""
        ...

    def to_onnx(self) -> onnx.ModelProto:
        """The network as tf2onnx makes it, channels first."""
        ...


def open_source(path: Path, kind: Kind) -> Source:
    """The network of ``path``.

    Raises:
        ConvertError: TensorFlow is not installed, or the file is damaged or of another network.
    """
    _prepare()
    with _silent(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _open(path, kind)


def _open(path: Path, kind: Kind) -> Source:
    match kind:
        case Kind.LEGACY_WEIGHTS:
            return _arcface(path)
        case Kind.KERAS3_WEIGHTS:
            return _arcface_of_keras3(path)
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
        signature = [tf.TensorSpec(shape, tf.float32, name=_INPUT)]
        return _from_function(graph, signature)


class SavedModelSource:
    """A SavedModel with one picture in and one embedding out."""

    exact = True

    def __init__(self, path: Path) -> None:
        """Raises WeightsError when it cannot be loaded or has another signature."""
        import tensorflow as tf  # noqa: PLC0415

        try:
            self._loaded = tf.saved_model.load(str(path))
            self._call = self._loaded.signatures["serving_default"]
        except Exception as error:
            raise WeightsError(f"{path} cannot be loaded as a SavedModel: {_first_line(error)}.") from error
        inputs = self._call.structured_input_signature[1]
        if len(inputs) != 1 or len(self._call.structured_outputs) != 1:
            raise WeightsError(
                f"{path} has {len(inputs)} inputs and {len(self._call.structured_outputs)} outputs, not one."
            )
        (self._name,) = inputs
        self._shape = inputs[self._name].shape
        self.what = "a SavedModel"

    def run(self, pictures: Array) -> Array:
        """See :class:`Source`."""
        (output,) = self._call(**{self._name: pictures}).values()
        return np.asarray(output, np.float32)

    def layers(self, _pictures: Array) -> Iterator[Layer]:
        """See :class:`Source`."""
        return iter(())

    def to_onnx(self) -> onnx.ModelProto:
        """See :class:`Source`."""
        import tensorflow as tf  # noqa: PLC0415

        graph = tf.function(lambda pictures: next(iter(self._call(**{self._name: pictures}).values())))
        signature = [tf.TensorSpec((None, *self._shape[1:]), tf.float32, name=_INPUT)]
        return _from_function(graph, signature)


class TfliteSource:
    """A TensorFlow Lite model with one picture in and one embedding out."""

    def __init__(self, path: Path) -> None:
        """Raises WeightsError when it cannot be loaded or has another signature."""
        import tensorflow as tf  # noqa: PLC0415

        try:
            self._interpreter = tf.lite.Interpreter(model_path=str(path))
            self._interpreter.allocate_tensors()
        except Exception as error:
            raise WeightsError(f"{path} cannot be loaded as a TensorFlow Lite model: {_first_line(error)}.") from error
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1 or inputs[0]["dtype"] != np.float32:
            raise WeightsError(f"{path} should have one input of float32 and one output.")
        self._path = path
        self._input, self._output = inputs[0], outputs[0]
        types = {tensor["dtype"] for tensor in self._interpreter.get_tensor_details()}
        self.exact = np.int8 not in types and np.uint8 not in types
        self.what = "a TensorFlow Lite model" + ("" if self.exact else " with int8 weights")

    def run(self, pictures: Array) -> Array:
        """See :class:`Source`."""
        results = []
        for picture in pictures:
            self._interpreter.set_tensor(self._input["index"], picture[None].astype(np.float32))
            self._interpreter.invoke()
            results.append(np.array(self._interpreter.get_tensor(self._output["index"]), np.float32))
        return np.concatenate(results)

    def layers(self, _pictures: Array) -> Iterator[Layer]:
        """See :class:`Source`."""
        return iter(())

    def to_onnx(self) -> onnx.ModelProto:
        """See :class:`Source`."""
        name = self._input["name"]
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "out.onnx"
            options = ["--opset", str(OPSET), "--dequantize", "--inputs-as-nchw", name]
            command = [sys.executable, "-m", "tf2onnx.convert", "--tflite", str(self._path), "--output", str(output)]
            run = subprocess.run([*command, *options], capture_output=True, text=True, check=False)  # noqa: S603
            if run.returncode or not output.exists():
                raise ConvertError(f"tf2onnx cannot convert {self._path}: {run.stderr.strip().splitlines()[-1:]}")
            return onnx.load_model(output)


def _from_function(graph: Any, signature: list[Any]) -> onnx.ModelProto:
    import tf2onnx  # noqa: PLC0415

    with _silent():
        converted = tf2onnx.convert.from_function(graph, signature, opset=OPSET, inputs_as_nchw=[_INPUT])
    model: onnx.ModelProto = converted[0]
    return model


def _prepare() -> None:
    """Quiet, on CPU, with Keras 2 where TensorFlow looks for Keras."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    try:
        with _silent():
            import tensorflow  # noqa: F401, PLC0415
            import tf2onnx  # noqa: PLC0415
    except ImportError as error:
        raise ConvertError(f"{error.name or 'tensorflow'} is not installed. {INSTALL}") from error
    tf2onnx.logging.set_level(logging.ERROR)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """TensorFlow writes lines about accelerators to the process' standard error as it is imported."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _arcface(path: Path) -> KerasSource:
    import tf_keras  # noqa: PLC0415

    weights = read_legacy_weights(path)
    model = build_arcface(tf_keras)
    load_weights(model, weights, path.name)
    return KerasSource(model, "DeepFace's ArcFace (ResNet-34), legacy Keras weights")


def _arcface_of_keras3(path: Path) -> KerasSource:
    import keras  # noqa: PLC0415

    model = build_arcface(keras)
    try:
        model.load_weights(str(path))
    except Exception as error:
        raise WeightsError(f"{path} does not hold DeepFace's ArcFace (ResNet-34): {_first_line(error)}.") from error
    return KerasSource(model, "DeepFace's ArcFace (ResNet-34), Keras 3 weights")


def _whole_model(path: Path, kind: Kind) -> KerasSource:
    import keras  # noqa: PLC0415
    import tf_keras  # noqa: PLC0415

    loaders = [tf_keras] if kind is Kind.LEGACY_MODEL else [keras, tf_keras]
    failure: Exception | None = None
    for loader in loaders:
        try:
            # safe_mode: a model with Lambda layers would run code of its file.
            model = loader.models.load_model(str(path), compile=False, safe_mode=True)
        except Exception as error:
            failure = failure or error
            continue
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise WeightsError(_not_one(path, len(model.inputs), len(model.outputs)))
        return KerasSource(model, f"{kind}".removeprefix("a "))
    raise WeightsError(f"{path} cannot be loaded as {kind}: {_first_line(failure)}.")


def _not_one(path: Path, inputs: int, outputs: int) -> str:
    return f"{path} has {inputs} inputs and {outputs} outputs; one picture in and one embedding out are needed."


def _first_line(error: Exception | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
