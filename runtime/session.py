"""One ONNX Runtime session per model file and process, shared by all threads, safe after fork."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from models.card import ModelCard, read_card
from models.errors import ModelError
from runtime.errors import RuntimeFault
from runtime.providers import CPU, SessionOptions, create_session

Tensor = npt.NDArray[Any]


class SharedSession:
    """A model file, opened once, run from any thread.

    ONNX Runtime's thread pools do not survive ``fork``: a child opens its own session at its first run.
    """

    def __init__(
        self,
        path: Path,
        provider: str = CPU,
        options: SessionOptions | None = None,
        card: ModelCard | None = None,
    ) -> None:
        """Open ``path``; ``card`` is that of a file which carries none itself.

        Raises:
            ModelError: the file is missing, is not an ONNX model, or has no card.
            ProviderError: the provider cannot be loaded.
        """
        self.path = path
        self.provider = provider
        self._options = options or SessionOptions()
        self._lock = threading.Lock()
        self._inherited: list[ort.InferenceSession] = []
        self._session: ort.InferenceSession | None = self._open()
        self.card: ModelCard = card or read_card(self._session.get_modelmeta().custom_metadata_map, path)
        self.input_nodes: tuple[Any, ...] = tuple(self._session.get_inputs())
        self.output_nodes: tuple[Any, ...] = tuple(self._session.get_outputs())
        self.inputs: tuple[str, ...] = tuple(node.name for node in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(node.name for node in self._session.get_outputs())
        forget = weakref.WeakMethod(self._forget_inherited)
        os.register_at_fork(after_in_child=lambda: _call(forget))

    def run(self, feeds: Mapping[str, Tensor], outputs: Sequence[str] | None = None) -> list[Tensor]:
        """The outputs named (default: all, in the model's order) for one set of inputs."""
        results: list[Tensor] = self._current().run(list(outputs) if outputs else None, dict(feeds))
        return results

    def _current(self) -> ort.InferenceSession:
        session = self._session
        if session is None:
            with self._lock:
                if self._session is None:
                    self._session = self._open()
                session = self._session
        return session

    def _open(self) -> ort.InferenceSession:
        if not self.path.is_file():
            raise ModelError(f"{self.path} does not exist. Run `python -m convert fetch`, or check the path.")
        try:
            return create_session(self.path, self.provider, self._options)
        except RuntimeFault:
            raise
        except Exception as error:
            raise ModelError(
                f"{self.path} cannot be opened as an ONNX model: {str(error).splitlines()[0][:200]}. "
                "Run `python -m models verify` to see which files are damaged."
            ) from error

    def _forget_inherited(self) -> None:
        self._lock = threading.Lock()
        if self._session is not None:
            # Destroying it would wait for threads that do not exist in this process.
            self._inherited.append(self._session)
            self._session = None


def _call(method: weakref.WeakMethod[Any]) -> None:
    bound = method()
    if bound is not None:
        bound()


class Sessions:
    """Hands out one :class:`SharedSession` per file, provider and options."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[Path, str, SessionOptions], SharedSession] = {}

    def open(
        self,
        path: Path,
        provider: str = CPU,
        options: SessionOptions | None = None,
        card: ModelCard | None = None,
    ) -> SharedSession:
        """The session of ``path``, opened on the first call. Raises what :class:`SharedSession` raises."""
        key = (path.resolve(), provider, options or SessionOptions())
        with self._lock:
            if key not in self._open:
                self._open[key] = SharedSession(*key, card)
            return self._open[key]


def as_batch(images: npt.NDArray[np.uint8 | np.float32], card: ModelCard) -> npt.NDArray[np.float32]:
    """Pixels to network input, as the card says: channel order, mean, scale, layout.

    Args:
        images: (n, h, w, 3) uint8 or float32, 0 to 255, BGR; stays as it is.
        card: contract of the network.

    Returns:
        (n, 3, h, w) or (n, h, w, 3) float32, contiguous.
    """
    ordered = images[..., ::-1] if card.colour == "RGB" else images
    if card.layout == "NCHW":
        batch = np.array(ordered.transpose(0, 3, 1, 2), np.float32, order="C")
        shape = (1, 3, 1, 1)
    else:
        batch = np.array(ordered, np.float32, order="C")
        shape = (1, 1, 1, 3)
    if any(card.mean):
        batch -= np.asarray(card.mean, np.float32).reshape(shape)
    if any(factor != 1 for factor in card.scale):
        batch *= np.asarray(card.scale, np.float32).reshape(shape)
    return batch
