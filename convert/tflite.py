"""A TensorFlow Lite file as a source of the export."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from convert.errors import ConvertError, WeightsError
from convert.framework import OPSET, Array, Layer, first_line

_PLUMBING = frozenset({"QUANTIZE", "DEQUANTIZE", "RESHAPE", "TRANSPOSE", "DELEGATE"})


class TfliteSource:
    """A TensorFlow Lite model with one picture in and one embedding out, each float32, int8 or uint8."""

    def __init__(self, path: Path) -> None:
        """Raises WeightsError when it cannot be loaded or has another signature."""
        self._path = path
        self._interpreter = self._open()
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        kinds = {detail["dtype"] for detail in (*inputs, *outputs)}
        if len(inputs) != 1 or len(outputs) != 1 or not kinds <= {np.float32, np.int8, np.uint8}:
            raise WeightsError(
                f"{path} has {len(inputs)} inputs and {len(outputs)} outputs; one of each is needed, float32 or int8."
            )
        self._input, self._output = inputs[0], outputs[0]
        types = {tensor["dtype"] for tensor in self._interpreter.get_tensor_details()}
        self.exact = np.int8 not in types and np.uint8 not in types
        self.what = "a TensorFlow Lite model" + ("" if self.exact else " with int8 weights")

    def run(self, pictures: Array) -> Array:
        """See :class:`Source`."""
        results = []
        for picture in pictures:
            self._interpreter.set_tensor(self._input["index"], _stored(picture[None], self._input))
            self._interpreter.invoke()
            results.append(_real(np.array(self._interpreter.get_tensor(self._output["index"])), self._output))
        return np.concatenate(results)

    def layers(self, pictures: Array) -> Iterator[Layer]:
        """See :class:`Source`. Of the first picture; a layer is an operation of TensorFlow Lite here."""
        interpreter = self._open(whole=True)
        interpreter.set_tensor(self._input["index"], _stored(pictures[:1], self._input))
        interpreter.invoke()
        details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
        for operation in interpreter._get_ops_details():
            if operation["op_name"] in _PLUMBING:
                continue
            detail = details[operation["outputs"][0]]
            inputs = [details[index]["name"] for index in operation["inputs"] if index in details]
            yield Layer(detail["name"], inputs, _real(interpreter.get_tensor(detail["index"]), detail))

    def to_onnx(self) -> onnx.ModelProto:
        """See :class:`Source`."""
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "out.onnx"
            options = ["--opset", str(OPSET), "--dequantize", "--inputs-as-nchw", self._input["name"]]
            command = [sys.executable, "-m", "tf2onnx.convert", "--tflite", str(self._path), "--output", str(output)]
            run = subprocess.run([*command, *options], capture_output=True, text=True, check=False)  # noqa: S603
            if run.returncode or not output.exists():
                said = (run.stderr.strip().splitlines() or ["it said nothing"])[-1]
                raise ConvertError(f"tf2onnx cannot convert {self._path}: {said[:300]}.")
            return onnx.load_model(output)

    def _open(self, *, whole: bool = False) -> Any:
        """An interpreter; ``whole`` keeps what every operation gives, without kernels that join several."""
        import tensorflow as tf  # noqa: PLC0415

        resolver = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        options = {"experimental_preserve_all_tensors": True, "experimental_op_resolver_type": resolver}
        try:
            interpreter = tf.lite.Interpreter(model_path=str(self._path), **(options if whole else {}))
            interpreter.allocate_tensors()
        except Exception as error:
            raise WeightsError(
                f"{self._path} cannot be loaded as a TensorFlow Lite model: {first_line(error)}."
            ) from error
        return interpreter


def _stored(value: Array, detail: Mapping[str, Any]) -> npt.NDArray[Any]:
    """Real numbers as a tensor stores them."""
    if detail["dtype"] is np.float32:
        return value.astype(np.float32)
    scale, zero = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    whole = np.clip(np.rint(value / scale) + zero, limits.min, limits.max)
    return np.asarray(whole.astype(detail["dtype"]))


def _real(value: npt.NDArray[Any], detail: Mapping[str, Any]) -> Array:
    """The real numbers that a tensor stores."""
    scale, zero = detail["quantization"]
    if value.dtype in (np.int8, np.uint8, np.int16, np.int32) and scale:
        value = (value.astype(np.float32) - zero) * np.float32(scale)
    return np.asarray(value, np.float32)
