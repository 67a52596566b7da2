"""What a network of another framework is to the export: something that runs, shows its layers, and becomes ONNX."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx

Array = npt.NDArray[np.float32]
OPSET = 17
INPUT = "picture"


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
        """Every layer's output for ``pictures``, in order."""
        ...

    def to_onnx(self) -> onnx.ModelProto:
        """The network as tf2onnx makes it, channels first."""
        ...


def from_function(graph: Any, signature: list[Any]) -> onnx.ModelProto:
    """What tf2onnx makes of a function of TensorFlow."""
    import tf2onnx  # noqa: PLC0415

    with silent():
        converted = tf2onnx.convert.from_function(graph, signature, opset=OPSET, inputs_as_nchw=[INPUT])
    model: onnx.ModelProto = converted[0]
    return model


@contextlib.contextmanager
def silent() -> Iterator[None]:
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


def first_line(error: Exception | None) -> str:
    """What an error says first, for people."""
    lines = str(error).strip().splitlines()
    return lines[0][:300].rstrip(".") if lines else type(error).__name__
