"""Each model file opened once in a process, shared by all threads, safe after fork."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.card import ModelCard, read_card
from models.errors import ModelError
from runtime.cores import core_count
from runtime.errors import RuntimeFault
from runtime.memory import return_memory
from runtime.pair import Pair, open_pair
from runtime.providers import CPU, SessionOptions, create_session, prepared

Tensor = npt.NDArray[Any]


class Traffic:
    """How many runs go on in this process, over all of its networks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        # With fewer runs than half of the cores, more threads for each still gain more than they lose.
        self._few = max(1, core_count() // 2)
        forget = weakref.WeakMethod(self._forget)
        os.register_at_fork(after_in_child=lambda: _call(forget))

    @contextlib.contextmanager
    def run(self) -> Iterator[bool]:
        """Count one run; whether it has the machine (nearly) to itself."""
        with self._lock:
            self._running += 1
            light = self._running <= self._few
        try:
            yield light
        finally:
            with self._lock:
                self._running -= 1

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._running = 0


@dataclass(frozen=True, slots=True)
class _Opened:
    """A network as it runs when there is little traffic, with all cores, and when there is much, with one.

    Attributes:
        pair: the same session twice where traffic makes no difference.
        pool: a thread for each core but one, to run the heavy one side by side; None where it is the light one.
    """

    pair: Pair
    pool: ThreadPoolExecutor | None


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
        traffic: Traffic | None = None,
    ) -> None:
        """Open ``path``; ``card`` is that of a file which carries none itself.

        Args:
            traffic: shared by the networks of a process.

        Raises:
            ModelError: the file is missing, is not an ONNX model, or has no card.
            ProviderError: the provider cannot be loaded.
        """
        self.path = path
        self.provider = provider
        self.options = options or SessionOptions()
        self._lock = threading.Lock()
        self._traffic = traffic or Traffic()
        self._inherited: list[_Opened] = []
        opened = self._open()
        self._opened: _Opened | None = opened
        self.card: ModelCard = card or read_card(opened.pair.light.get_modelmeta().custom_metadata_map, path)
        self.input_nodes: tuple[Any, ...] = tuple(opened.pair.light.get_inputs())
        self.output_nodes: tuple[Any, ...] = tuple(opened.pair.light.get_outputs())
        self.inputs: tuple[str, ...] = tuple(node.name for node in self.input_nodes)
        self.outputs: tuple[str, ...] = tuple(node.name for node in self.output_nodes)
        forget = weakref.WeakMethod(self._forget_inherited)
        os.register_at_fork(after_in_child=lambda: _call(forget))

    def run(self, feeds: Mapping[str, Tensor], outputs: Sequence[str] | None = None) -> list[Tensor]:
        """The outputs named (default: all, in the model's order) for one set of inputs."""
        opened = self._current()
        with self._traffic.run() as light:
            session = opened.pair.light if light else opened.pair.heavy
            results: list[Tensor] = session.run(list(outputs) if outputs else None, dict(feeds))
        if not self.options.arena:
            # Without an arena the allocator keeps what the run has freed: hundreds of megabytes for each thread.
            return_memory()
        return results

    @property
    def side_by_side(self) -> int:
        """How many inputs :meth:`run_each` takes to keep all cores busy; 1: they gain nothing from being several."""
        return core_count() if self._current().pool is not None else 1

    def run_each(
        self, feeds: Sequence[Mapping[str, Tensor]], outputs: Sequence[str] | None = None
    ) -> list[list[Tensor]]:
        """The outputs for each of several sets of inputs, in their order.

        On an idle machine they run side by side, on one core each: that gains more than many cores for one after the
        other, since nobody waits for anybody.
        """
        opened = self._current()
        names = list(outputs) if outputs else None
        with self._traffic.run() as light:
            if not light or opened.pool is None:
                return [opened.pair.heavy.run(names, dict(feed)) for feed in feeds]
            # The calling thread takes its part: were it to sleep, the system would move it about.
            own = range(0, len(feeds), core_count())
            others = {
                index: opened.pool.submit(opened.pair.heavy.run, names, dict(feed))
                for index, feed in enumerate(feeds)
                if index not in own
            }
            mine = {index: opened.pair.heavy.run(names, dict(feeds[index])) for index in own}
            return [mine[index] if index in mine else others[index].result() for index in range(len(feeds))]

    def _current(self) -> _Opened:
        opened = self._opened
        if opened is None:
            with self._lock:
                if self._opened is None:
                    self._opened = self._open()
                opened = self._opened
        return opened

    def _open(self) -> _Opened:
        if not self.path.is_file():
            raise ModelError(f"{self.path} does not exist. Run `python -m convert fetch`, or check the path.")
        try:
            with prepared(self.path, self.provider, bf16=self.options.bf16) as file:
                if self.provider == CPU and self.options.threads == 0 and core_count() > 1:
                    pair, pool = open_pair(file, self.options), ThreadPoolExecutor(core_count() - 1, "run")
                else:
                    alone = create_session(file, self.provider, self.options)
                    pair, pool = Pair(alone, alone), None
        except RuntimeFault:
            raise
        except Exception as error:
            raise ModelError(
                f"{self.path} cannot be opened as an ONNX model: {str(error).splitlines()[0][:200]}. "
                "Run `python -m models verify` to see which files are damaged."
            ) from error
        return_memory()
        return _Opened(pair, pool)

    def _forget_inherited(self) -> None:
        self._lock = threading.Lock()
        if self._opened is not None:
            # Destroying it would wait for threads that do not exist in this process.
            self._inherited.append(self._opened)
            self._opened = None


def _call(method: weakref.WeakMethod[Any]) -> None:
    bound = method()
    if bound is not None:
        bound()


class Sessions:
    """Hands out one :class:`SharedSession` per file, provider and options."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._traffic = Traffic()
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
                self._open[key] = SharedSession(*key, card, self._traffic)
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
