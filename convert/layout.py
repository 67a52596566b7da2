"""Graph passes that write a network in operators for which ONNX Runtime has fast int8 and fp16 kernels.

Each is a pure function from model to model and keeps what the network computes, as those of :mod:`convert.passes` do.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from convert.passes import Array, constants_of, copy_model, free_name
from runtime.onnx_graph import attribute


def batchnorm_as_affine(model: onnx.ModelProto) -> onnx.ModelProto:
    """``BatchNormalization`` at inference as ``Mul`` and ``Add`` with one number per channel.

    ONNX Runtime moves transpositions past these two, but not past the original: between int8 convolutions, which work
    channels last, each BatchNormalization costs two transpositions. In fp16 a variance may vanish; the factor does not.
    """
    graph = _Rewriter(model)
    for node in graph.nodes:
        values = [graph.value(name) for name in node.input[1:5]]
        if node.op_type != "BatchNormalization" or any(value is None for value in values) or len(node.output) != 1:
            graph.keep(node)
            continue
        gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
        factor = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        rank = graph.rank(node.input[0])
        if rank is None:
            graph.keep(node)
            continue
        shape = (-1, *[1] * (rank - 2))
        scaled = graph.add("Mul", node, "scaled", node.input[0], graph.constant(node, "factor", factor.reshape(shape)))
        shift = graph.constant(node, "shift", (beta - mean * factor).reshape(shape))
        graph.add("Add", node, "", scaled, shift)
    return graph.model()


def prelu_as_max(model: onnx.ModelProto) -> onnx.ModelProto:
    """``PRelu`` as ``Max(x, slope * x)`` where no slope is over 1, else as ``Relu(x) + slope * Min(x, 0)``.

    Equal for every x. ONNX Runtime's PRelu runs element by element; these run in whole vectors and take a fifth of its
    time, which between int8 convolutions is a third of the whole network's.
    """
    graph = _Rewriter(model)
    for node in graph.nodes:
        slope = graph.value(node.input[1]) if node.op_type == "PRelu" else None
        if slope is None:
            graph.keep(node)
            continue
        x = node.input[0]
        if slope.max() <= 1:
            graph.add("Max", node, "", x, graph.add("Mul", node, "sloped", x, node.input[1]))
            continue
        zero = graph.constant(node, "zero", np.zeros(()))
        sloped = graph.add("Mul", node, "sloped", graph.add("Min", node, "negative", x, zero), node.input[1])
        graph.add("Add", node, "", graph.add("Relu", node, "positive", x), sloped)
    return graph.model()


def name_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give every node a name that no other has; those that have one keep it."""
    copy = copy_model(model)
    taken: set[str] = set()
    for index, node in enumerate(copy.graph.node):
        if not node.name or node.name in taken:
            node.name = free_name(f"{node.op_type}_{index}", taken)
        taken.add(node.name)
    return copy


class _Rewriter:
    """A model whose nodes are gone over once, each kept or written in other operators."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = copy_model(model)
        self.nodes = list(model.graph.node)
        del self._model.graph.node[:]
        self._constants = constants_of(model)
        self._names = set(self._constants) | {name for node in self.nodes for name in (*node.input, *node.output)}
        self._ranks: dict[str, int] | None = None

    def keep(self, node: onnx.NodeProto) -> None:
        self._model.graph.node.add().CopyFrom(node)

    def value(self, name: str) -> Array | None:
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def rank(self, name: str) -> int | None:
        """How many dimensions a value has, where that can be inferred."""
        if self._ranks is None:
            whole = self.model()
            whole.graph.ClearField("node")
            whole.graph.node.extend(self.nodes)
            inferred = onnx.shape_inference.infer_shapes(whole).graph
            infos = (*inferred.value_info, *inferred.input, *inferred.output)
            self._ranks = {
                info.name: len(info.type.tensor_type.shape.dim)
                for info in infos
                if info.type.tensor_type.HasField("shape")
            }
        return self._ranks.get(name)

    def constant(self, node: onnx.NodeProto, part: str, value: npt.NDArray[np.float64]) -> str:
        name = self._name(node, part)
        self._model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def add(self, operator: str, node: onnx.NodeProto, part: str, *inputs: str) -> str:
        """A node in the place of ``node``; without ``part`` it gives what ``node`` gave."""
        output = self._name(node, part) if part else node.output[0]
        self._model.graph.node.append(helper.make_node(operator, list(inputs), [output], name=f"{output}_{operator}"))
        return output

    def model(self) -> onnx.ModelProto:
        """The model so far, without shapes of values that may be gone and without constants that nothing reads."""
        copy = copy_model(self._model)
        del copy.graph.value_info[:]
        return copy

    def _name(self, node: onnx.NodeProto, part: str) -> str:
        name = free_name(f"{node.output[0]}_{part}", self._names)
        self._names.add(name)
        return name
