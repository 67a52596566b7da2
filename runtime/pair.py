"""A network opened twice on the CPU provider: for all cores and for one, with its weights in memory once."""

from __future__ import annotations

import logging
import mmap
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from runtime.byte_pairs import is_quantised
from runtime.providers import CPU, SessionOptions, create_session, native_options, needs_exact_kernels

logger = logging.getLogger(__name__)

_NO_PREPACKING = ("session.disable_prepacking", "1")
# Smaller ones stay in the graph.
_LEAST_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sessions of one network.

    Attributes:
        light: runs on the threads of the options, or on all cores.
        heavy: runs on one thread.
        weights: what both read from, and must outlive them; empty where each has its own.
    """

    light: ort.InferenceSession
    heavy: ort.InferenceSession
    weights: Mapping[str, ort.OrtValue] = field(default_factory=dict)


def open_pair(model: Path, options: SessionOptions) -> Pair:
    """Open ``model`` on the CPU provider.

    ONNX Runtime rearranges weights for its kernels when it opens a network. Here that is done once, and both sessions
    get the result. Kernels of quantised networks, which are small, rearrange theirs later: each session has its own. So
    it is where the folder of temporary files takes no copy of the network; the log says so.

    Raises whatever ONNX Runtime raises for a file that it cannot open.
    """
    alone = replace(options, threads=1)
    problem = ""
    if not is_quantised(model):
        try:
            shared = _open_sharing(model, options, alone)
        except Exception as error:
            # A full disk is told by ONNX Runtime as anything else is; a file that is no good is met again below.
            problem = str(error).partition("\n")[0][:200]
        else:
            if shared is not None:
                return shared
    exact = needs_exact_kernels(model)
    light, heavy = (create_session(model, CPU, one, exact) for one in (options, alone))
    if problem:
        logger.warning("%s has its weights in memory twice, no copy could be made ready: %s", model, problem)
    return Pair(light, heavy)


def _open_sharing(model: Path, options: SessionOptions, alone: SessionOptions) -> Pair | None:
    """None where the network's weights are not all float32."""
    with tempfile.TemporaryDirectory(prefix="face-service-") as name:
        graph = _write_optimised(model, Path(name), alone)
        weights = _weights(graph)
        if weights is None:
            return None
        light, heavy = (_open_optimised(graph, one, weights) for one in (options, alone))
        return Pair(light, heavy, weights)


def _write_optimised(model: Path, folder: Path, options: SessionOptions) -> Path:
    """The graph as this processor's kernels want it, its weights in a file beside it."""
    path = folder / "optimised.onnx"
    native = native_options(options)
    native.optimized_model_filepath = str(path)
    native.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
    native.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", str(_LEAST_BYTES)
    )
    native.add_session_config_entry(*_NO_PREPACKING)
    ort.InferenceSession(str(model), native, providers=[CPU])
    return path


def _weights(path: Path) -> dict[str, ort.OrtValue] | None:
    """What lies beside the graph, read once; None where that is not all float32."""
    stored = [
        tensor
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    if not stored or any(tensor.data_type != onnx.TensorProto.FLOAT for tensor in stored):
        return None
    content = _read_aligned(path.parent / "weights")
    found = {}
    for tensor in stored:
        place = {entry.key: entry.value for entry in tensor.external_data}
        start = int(place.get("offset", 0))
        values = content[start : start + int(place["length"])].view(np.float32).reshape(tuple(tensor.dims))
        found[tensor.name] = ort.OrtValue.ortvalue_from_numpy(values)
    return found


def _read_aligned(path: Path) -> npt.NDArray[np.uint8]:
    """A file's content from the start of a page on: kernels read whole cache lines."""
    pages = mmap.mmap(-1, path.stat().st_size)
    with path.open("rb") as file:
        file.readinto(pages)
    return np.frombuffer(pages, np.uint8)


def _open_optimised(path: Path, options: SessionOptions, weights: Mapping[str, ort.OrtValue]) -> ort.InferenceSession:
    native = native_options(options)
    native.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Packed for its matrix products, weights would be there once more for each session; a product of one row, which is
    # what most runs have, is no slower without.
    native.add_session_config_entry(*_NO_PREPACKING)
    for name, value in weights.items():
        native.add_initializer(name, value)
    return ort.InferenceSession(str(path), native, providers=[CPU])
