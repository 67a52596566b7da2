"""Weights of convolutions as bfloat16 numbers, chosen so that a network loses less than by the nearest ones.

What a convolution loses by rounding its weights is ``e H e``: the errors of the weights of one output, and the second
moments of the numbers that these weights meet. Neighbouring pixels are alike, and so are channels, so errors can cancel
each other: weights are rounded one after the other, each with the errors so far put into it as ``H`` says. That is
Babai's nearest plane, and the same as GPTQ (Frantar et al., 2022, https://arxiv.org/abs/2210.17323; Chen et al., 2025,
https://arxiv.org/abs/2507.18553).

``H`` comes from a few pictures of noise that is as smooth as photographs, in small convolutions. They are the first
ones, where most is lost, and the ones for which this takes little time. For others neighbours are taken to correlate as
they do in face networks on the average, and channels not at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from runtime.cores import core_count
from runtime.onnx_graph import attribute, only_reader

Floats = npt.NDArray[np.float32]

_SEEN = 1152
"""Weights of one output up to which a convolution's input is looked at: 128 channels of 3 x 3."""
_TOGETHER = 144
"""Weights among which errors cancel: the time grows with the cube."""
_CORRELATION = 0.5
"""Of neighbouring pixels inside a network: measured 0.4 to 0.5 in the third stage of a ResNet-34, mean included."""
_WINDOWS = 512
"""Places looked at in each picture."""
_SMOOTHNESS = (1.0, 1.5, 2.0, 1.0)
"""Of each picture: amplitudes fall with this power of the frequency. Photographs have about 1, blurred ones more."""
_DAMPING = 0.02
"""Part of the mean second moment that is added to each: the pictures are few, and are no faces."""


def round_weights(model: onnx.ModelProto, low: float, high: float) -> bool:
    """Round the weights of all convolutions in place; False where the network has none with weights in float32.

    Args:
        model: a network with one input.
        low, high: the least and the largest number that the input holds.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "Conv" and _is_alone(model.graph, node, weights)]
    moments = _moments(model, [node for node in nodes if _is_small(node, weights)], low, high)
    for node in nodes:
        tensor = weights[node.input[1]]
        weight = numpy_helper.to_array(tensor)
        if node.output[0] in moments:
            rows = weight.reshape(len(weight), -1)
            parts = zip(_parts(rows.shape[1]), moments[node.output[0]], strict=True)
            rounded = np.concatenate([_fed_back(rows[:, part], moment) for part, moment in parts], axis=1)
        else:
            height, width = weight.shape[2:]
            rounded = _fed_back(weight.reshape(-1, height * width), _neighbours(height, width))
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(rounded.reshape(weight.shape)), tensor.name))
    return bool(nodes)


def nearest(values: Floats) -> Floats:
    """The nearest bfloat16 of each number of a contiguous array, ties to the even one."""
    bits = values.view(np.uint32)
    return np.asarray((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000), np.uint32).view(np.float32)


def _is_alone(graph: onnx.GraphProto, node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether the node's weights are its own, and no scale follows that OpenVINO would multiply into them."""
    tensor = weights.get(node.input[1])
    if tensor is None or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 4:
        return False
    follower = only_reader(graph, node.output[0])
    scaled = follower is not None and follower.op_type in ("BatchNormalization", "Mul", "Div")
    return only_reader(graph, tensor.name) is not None and not scaled


def _is_small(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    plain = attribute(node, "group", 1) == 1 and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
    dense = all(step == 1 for step in attribute(node, "dilations", ()))
    return plain and dense and math.prod(weights[node.input[1]].dims[1:]) <= _SEEN


def _parts(count: int) -> Sequence[slice]:
    """Slices of ``count`` weights whose errors cancel each other."""
    edges = np.linspace(0, count, math.ceil(count / _TOGETHER) + 1).astype(int)
    return [slice(start, end) for start, end in pairwise(edges)]


def _fed_back(weights: Floats, moments: Floats) -> Floats:
    """The weights (m, k) as bfloat16, each row's errors cancelling as ``moments`` (k, k) of its factors say."""
    factor = np.linalg.cholesky(moments)
    feed = np.ascontiguousarray((factor / factor.diagonal()).T)
    rounded = weights.T.copy()
    errors = np.zeros_like(rounded)
    for index in reversed(range(len(rounded))):
        row = nearest(rounded[index] + feed[index, index + 1 :] @ errors[index + 1 :])
        errors[index] = rounded[index] - row
        rounded[index] = row
    return rounded.T


def _neighbours(height: int, width: int) -> Floats:
    """Second moments (k, k) of the pixels under a kernel: they fall with the distance."""
    places = np.stack(np.divmod(np.arange(height * width), width), axis=1)
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    return np.asarray(_CORRELATION**distances, np.float32)


def _moments(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], low: float, high: float
) -> dict[str, list[Floats]]:
    """For each node, named by its output, the second moments of what each part of its weights meets."""
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
    if not nodes or len(shape) != 4 or not all(shape[1:]):
        return {}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    random = np.random.default_rng(0)
    start = model.graph.input[0].name
    names = sorted({node.input[0] for node in nodes} - {start})
    session = _session_until(model, names) if names else None
    windows: dict[str, list[Floats]] = {node.output[0]: [] for node in nodes}
    for picture in _pictures(shape[1:], low, high, random):
        values: dict[str, Any] = {start: picture}
        if session is not None:
            values.update(zip(names, session.run(names, values), strict=True))
        for node in nodes:
            kernel = weights[node.input[1]].dims[2:]
            windows[node.output[0]].append(_windows(values[node.input[0]][0], node, kernel, random))
    moments = {}
    for name, found in windows.items():
        rows = np.concatenate(found)
        moments[name] = [_damped(rows[:, part].T @ rows[:, part]) for part in _parts(rows.shape[1])]
    return moments


def _damped(moments: Floats) -> Floats:
    mean = moments.diagonal().mean()
    # A convolution whose input is nothing but zeros may have any weights.
    moments[np.diag_indices_from(moments)] += _DAMPING * mean if mean > 0 else 1
    return moments


def _session_until(model: onnx.ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    """The part of the network that computes the values ``names``."""
    nodes = list(model.graph.node)
    last = max(index for index, node in enumerate(nodes) if not {*names}.isdisjoint(node.output))
    read = {name for node in nodes[: last + 1] for name in node.input}
    graph = helper.make_graph(
        nodes[: last + 1],
        "start",
        model.graph.input,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        [tensor for tensor in model.graph.initializer if tensor.name in read],
    )
    start = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = ort.SessionOptions()
    options.intra_op_num_threads = core_count()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(start.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _pictures(shape: Sequence[int], low: float, high: float, random: np.random.Generator) -> Sequence[Floats]:
    """Smooth noise as a network's input (1, channels, height, width) or (1, height, width, channels)."""
    height, width = shape[1:] if shape[0] == 3 else shape[:2]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = 1
    pictures = []
    for power in _SMOOTHNESS:
        spectrum = np.fft.fft2(random.normal(size=(4, height, width))) / frequency**power
        noise = np.fft.ifft2(spectrum).real
        noise = (noise - noise.mean((1, 2), keepdims=True)) / noise.std((1, 2), keepdims=True)
        # Mostly grey, as skin is; a quarter of the range is the contrast of a photograph.
        planes = 0.45 + random.uniform(-0.1, 0.1, (3, 1, 1)) + 0.2 * noise[0] + 0.05 * noise[1:]
        picture = (low + (high - low) * planes.clip(0, 1)).astype(np.float32)
        pictures.append(picture[None] if shape[0] == 3 else picture.transpose(1, 2, 0)[None])
    return pictures


def _windows(values: Any, node: onnx.NodeProto, kernel: Sequence[int], random: np.random.Generator) -> Floats:
    """What the kernel covers (n, k) at random places of the node's input (channels, height, width)."""
    top, left, bottom, right = attribute(node, "pads", (0, 0, 0, 0))
    down, across = attribute(node, "strides", (1, 1))
    padded = np.pad(values, ((0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(kernel), axis=(1, 2))[:, ::down, ::across]
    rows = random.integers(0, windows.shape[1], _WINDOWS)
    columns = random.integers(0, windows.shape[2], _WINDOWS)
    return np.ascontiguousarray(windows[:, rows, columns].swapaxes(0, 1)).reshape(_WINDOWS, -1)
