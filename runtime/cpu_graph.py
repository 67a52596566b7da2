"""A network's graph in the form that ONNX Runtime's CPU kernels run fastest; what it computes stays the same.

``PRelu`` is the one operator of face networks without a fast kernel: it branches at every number, and it forces the
blocked layout of the convolutions around it back to plain planes. SFace spends two thirds of its time there. With
``r = relu(x)`` a rectifier of slope ``a`` is ``a x + (1 - a) r``: two depthwise 1 x 1 convolutions, which keep the
layout and into which ONNX Runtime fuses the rectifier and the sum.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from runtime.onnx_graph import mentions, replace_items

_BLOCK = 16
"""Channels of ONNX Runtime's blocked layout with AVX-512 (8 with less); other counts stay in planes."""
_KEEP_CHANNELS = frozenset({"BatchNormalization", "Relu", "PRelu", "Dropout", "Identity"})
_BLOCKED = platform.machine() in {"x86_64", "AMD64"}


def has_rectifiers(path: Path) -> bool:
    """Whether the ONNX file at ``path`` may hold a ``PRelu``; reads it without parsing it."""
    return mentions(path, b"PRelu")


def split_rectifiers(model: onnx.ModelProto, blocked: bool = _BLOCKED) -> int:
    """Rewrite in place every ``PRelu`` with a slope for each channel of a picture; how many there were.

    Args:
        model: a network; its weights are float32.
        blocked: whether convolutions run in the blocked layout; else plain arithmetic takes the rectifier's place.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    channels = _channels(graph, weights)
    nodes: list[onnx.NodeProto] = []
    done = 0
    for node in graph.node:
        slope = _slope(node, weights, channels)
        if slope is None:
            nodes.append(node)
            continue
        write = _Writer(graph, node)
        nodes += write.convolutions(slope) if blocked and len(slope) % _BLOCK == 0 else write.arithmetic(slope)
        done += 1
    replace_items(graph.node, nodes)
    used = {name for node in nodes for name in node.input}
    replace_items(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])
    return done


def _channels(graph: onnx.GraphProto, weights: Mapping[str, onnx.TensorProto]) -> dict[str, int]:
    """Channels of the tensors that are known to be (n, channels, height, width)."""
    found: dict[str, int] = {}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in weights and len(weights[node.input[1]].dims) == 4:
            found[node.output[0]] = weights[node.input[1]].dims[0]
        elif (node.op_type in _KEEP_CHANNELS and node.input[0] in found) or (
            node.op_type == "Add" and all(name in found for name in node.input)
        ):
            found[node.output[0]] = found[node.input[0]]
    return found


def _slope(
    node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], channels: Mapping[str, int]
) -> npt.NDArray[np.float32] | None:
    """(channels,) slope of a ``PRelu`` that can be rewritten."""
    if node.op_type != "PRelu" or node.input[0] not in channels or node.input[1] not in weights:
        return None
    tensor, count = weights[node.input[1]], channels[node.input[0]]
    shape = list(tensor.dims)
    if tensor.data_type != TensorProto.FLOAT or shape not in ([count, 1, 1], [1, count, 1, 1]):
        return None
    return np.asarray(numpy_helper.to_array(tensor), np.float32).reshape(count)


class _Writer:
    """Writes what takes the place of one ``PRelu``."""

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
        self._graph = graph
        self._x, self._y = node.input[0], node.output[0]

    def convolutions(self, slope: npt.NDArray[np.float32]) -> list[onnx.NodeProto]:
        rest = 1 - slope
        if (rest >= 0).all():
            # relu((1 - a) x): fused into the convolution.
            positive = [self._depthwise("rest", self._x, rest), self._node("Relu", "positive", self._name("rest"))]
        else:
            positive = [
                self._node("Relu", "relu", self._x),
                self._depthwise("positive", self._name("relu"), rest),
            ]
        sloped = self._depthwise("sloped", self._x, slope)
        total = helper.make_node("Add", [self._name("sloped"), self._name("positive")], [self._y])
        return [*positive, sloped, total]

    def arithmetic(self, slope: npt.NDArray[np.float32]) -> list[onnx.NodeProto]:
        """``x + (a - 1) min(x, 0)``."""
        zero, rest = self._constant("zero", np.float32(0)), self._constant("rest", (slope - 1).reshape(-1, 1, 1))
        return [
            self._node("Min", "negative", self._x, zero),
            self._node("Mul", "change", self._name("negative"), rest),
            helper.make_node("Add", [self._x, self._name("change")], [self._y]),
        ]

    def _depthwise(self, name: str, x: str, factors: npt.NDArray[np.float32]) -> onnx.NodeProto:
        weight = self._constant(f"{name}.weight", factors.reshape(-1, 1, 1, 1))
        return helper.make_node("Conv", [x, weight], [self._name(name)], kernel_shape=[1, 1], group=len(factors))

    def _node(self, operator: str, name: str, *inputs: str) -> onnx.NodeProto:
        return helper.make_node(operator, inputs, [self._name(name)])

    def _constant(self, name: str, value: npt.ArrayLike) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), self._name(name)))
        return self._name(name)

    def _name(self, name: str) -> str:
        return f"{self._y}/prelu/{name}"
