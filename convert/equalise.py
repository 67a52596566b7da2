"""A float network whose channels fill their common int8 scale alike; what it computes stays the same.

One scale spans a whole tensor, so that a channel of small numbers gets few of its 256 levels. Between two layers each
channel may be counted in a unit of its own: what the first is divided by, the second is multiplied by, and a rectifier
between lets it pass. The idea is that of Nagel et al. 2019, "Data-free quantization through weight equalization and
bias correction"; how large a channel is, is seen on pictures here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from convert.passes import Array, copy_model, producers_of, uses_of
from convert.watch import watched
from runtime.faces import FloatArray
from runtime.onnx_graph import attribute

MOST = 8.0
"""How much larger or smaller a channel may become, beside the middle one."""

_RECTIFIERS = frozenset({"PRelu", "Relu", "LeakyRelu"})
"""Operators that give twice as much for twice as much."""

Sizes = npt.NDArray[np.float64]


def equalise(model: onnx.ModelProto, pictures: FloatArray) -> onnx.ModelProto:
    """The same network with the channels between its layers alike in size.

    Only where a value is made by a convolution, or by a factor and a shift for each channel, and only convolutions and
    factors read it, at least one convolution among them.

    Args:
        model: BatchNormalizations are ``Mul`` and ``Add`` in it (see :mod:`convert.layout`), rectifiers are whole.
        pictures: (n, ...) float32, network inputs; some suffice.
    """
    network = _Network(copy_model(model))
    links = list(network.links())
    if links:
        for link, seen in zip(links, _sizes(model, [link.value for link in links], pictures), strict=True):
            network.rescale(link, _units(seen, network.weights_size(link, len(seen))))
    return network.model


@dataclass(frozen=True, slots=True)
class _Link:
    """A value whose channels may be counted otherwise.

    Attributes:
        value: its name.
        makers: what divides.
        readers: what multiplies.
    """

    value: str
    makers: tuple[onnx.NodeProto, ...]
    readers: tuple[onnx.NodeProto, ...]


class _Network:
    """A model whose weights are changed in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._producers = producers_of(model)
        self._uses = uses_of(model)
        self._outputs = {output.name for output in model.graph.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def links(self) -> Iterator[_Link]:
        for node in self.model.graph.node:
            makers = self._makers(node)
            readers = self._absorbing(node.output[0]) if makers else None
            if readers and any(reader.op_type == "Conv" for reader in readers):
                yield _Link(node.output[0], makers, tuple(readers))

    def weights_size(self, link: _Link, channels: int) -> Sizes:
        """(channels,) the largest weight by which each channel is read."""
        sizes = np.zeros(channels)
        for node in link.readers:
            if node.op_type == "Conv":
                grouped = self._by_channel(node)
                sizes = np.maximum(sizes, np.abs(grouped).max(axis=(1, 3)).reshape(-1))
        return sizes

    def rescale(self, link: _Link, units: Sizes) -> None:
        for node in link.makers:
            for index in self._own(node):
                value = self._weights[node.input[index]]
                # Of a convolution weights and bias start with the channel; a factor and a shift have it first of three.
                shape = (-1, *[1] * (value.ndim - 1)) if node.op_type == "Conv" else (-1, 1, 1)
                self._put(node, index, value / units.reshape(shape))
        for node in link.readers:
            if node.op_type == "Conv":
                grouped = self._by_channel(node) * units.reshape(attribute(node, "group", 1), 1, -1, 1)
                self._put(node, 1, grouped.reshape(self._weights[node.input[1]].shape))
            else:
                (index,) = self._own(node)
                self._put(node, index, self._weights[node.input[index]] * units.reshape(-1, 1, 1))

    def _makers(self, node: onnx.NodeProto) -> tuple[onnx.NodeProto, ...]:
        """The nodes that give a value, if they can divide it; else none."""
        if self._is_conv(node):
            return (node,)
        if node.op_type != "Add" or not self._is_affine(node):
            return ()
        changed = next(name for name in node.input if name not in self._weights)
        factor = self._producers.get(changed)
        if factor is None or factor.op_type != "Mul" or not self._is_affine(factor) or self._uses[changed] != 1:
            return ()
        return (factor, node)

    def _absorbing(self, value: str) -> list[onnx.NodeProto] | None:
        """The nodes that read a value, through rectifiers, if all can multiply it; else None."""
        if value in self._outputs:
            return None
        found: list[onnx.NodeProto] = []
        for node in self._readers.get(value, ()):
            if (self._is_conv(node) and node.input[0] == value) or (node.op_type == "Mul" and self._is_affine(node)):
                found.append(node)
            elif node.op_type in _RECTIFIERS and node.input[0] == value:
                behind = self._absorbing(node.output[0])
                if behind is None:
                    return None
                found += behind
            else:
                return None
        return found

    def _is_conv(self, node: onnx.NodeProto) -> bool:
        return node.op_type == "Conv" and len(self._own(node)) == len(node.input) - 1 and self._rank(node) == 4

    def _is_affine(self, node: onnx.NodeProto) -> bool:
        """Whether it multiplies or adds one number for each channel of a picture."""
        own = self._own(node)
        if len(own) != 1:
            return False
        value = self._weights[node.input[own[0]]]
        return value.ndim in (3, 4) and value.shape[-3:] == (value.size, 1, 1)

    def _own(self, node: onnx.NodeProto) -> list[int]:
        return [index for index, name in enumerate(node.input) if name in self._weights]

    def _rank(self, node: onnx.NodeProto) -> int:
        return self._weights[node.input[1]].ndim

    def _by_channel(self, node: onnx.NodeProto) -> Array:
        """A convolution's weights as (groups, outputs of a group, inputs of a group, pixels)."""
        weight = self._weights[node.input[1]]
        groups = attribute(node, "group", 1)
        return weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)

    def _put(self, node: onnx.NodeProto, index: int, value: Array) -> None:
        """Give ``node`` weights of its own; what the old ones were stays for others that read them."""
        name = f"{node.output[0]}_{index}_equalised"
        self._weights[name] = np.ascontiguousarray(value, np.float32)
        tensor = numpy_helper.from_array(self._weights[name], name)
        old = next((one for one in self.model.graph.initializer if one.name == name), None)
        if old is not None:
            old.CopyFrom(tensor)
        else:
            self.model.graph.initializer.append(tensor)
        node.input[index] = name


def _sizes(model: onnx.ModelProto, names: Sequence[str], pictures: FloatArray) -> list[Sizes]:
    """For each value (channels,): the largest number of each channel in a picture, on average over the pictures."""
    found: list[list[Sizes]] = [[] for _ in names]
    for values in watched(model, names, pictures):
        for sizes, name in zip(found, names, strict=True):
            sizes.append(np.abs(values[name][0]).reshape(values[name].shape[1], -1).max(axis=1).astype(np.float64))
    return [np.mean(sizes, axis=0) for sizes in found]


def _units(seen: Sizes, weights: Sizes) -> Sizes:
    """By what to divide each channel, so that its numbers and its weights are as far from the others' as each other."""
    least = 1e-6
    seen, weights = (np.maximum(sizes, max(sizes.max(), least) * least) for sizes in (seen, weights))
    units = np.sqrt(seen / weights)
    return np.asarray(np.clip(units / np.median(units), 1 / MOST, MOST), np.float64)
