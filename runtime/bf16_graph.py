"""A network's graph for multiplying in bfloat16, with a first convolution that loses nothing by it.

A bfloat16 has 8 significant bits: of all that a face network loses by them, more than half is lost in its first
convolution, where the picture itself is rounded. But for its last bits a number is the sum of two bfloat16:
``x = h + l`` and ``w = v + u``, and ``w x`` is ``v h + v l + u h`` but for the product of the two small parts. So the
first convolution gets ``h``, ``l`` and ``h`` as three times as many channels, which takes a few percent longer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from runtime.bf16_weights import nearest
from runtime.onnx_graph import attribute, only_reader, replace_items

_BITS = 8
_ARITHMETIC = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}


def split_first_convolution(model: onnx.ModelProto, low: float, high: float) -> bool:
    """Rewrite in place the first convolution; False, and nothing is changed, where the graph begins in another way.

    Args:
        model: a network with one input, its weights are float32.
        low, high: the least and the largest number that the input holds.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    limits, turn, name = np.array([low, high]), None, graph.input[0].name
    while (node := only_reader(graph, name)) is not None and node.op_type != "Conv":
        factor = weights.get(node.input[-1])
        if node.op_type in _ARITHMETIC and factor is not None and node.input[0] == name and np.prod(factor.dims) == 1:
            limits, turn = _ARITHMETIC[node.op_type](limits, numpy_helper.to_array(factor).item()), None
        elif node.op_type == "Transpose":
            turn = node
        else:
            return False
        name = node.output[0]
    largest = np.abs(limits).max()
    if node is None or node.input[1] not in weights or only_reader(graph, node.input[1]) is None or not largest:
        return False
    weight = numpy_helper.to_array(weights[node.input[1]])
    if weight.ndim != 4 or weight.dtype != np.float32 or attribute(node, "group", 1) != 1:
        return False
    # Split in the input's own order of axes: only nodes that follow the input directly are computed in float32.
    first, axis = (node, 1) if turn is None else (turn, attribute(turn, "perm", (0, 1, 2, 3))[1])
    parts = _split(graph, first.input[0], 2.0 ** (_BITS - math.ceil(math.log2(largest))), axis)
    first.input[0] = parts[-1].output[0]
    coarse = nearest(weight)
    wide = np.concatenate([coarse, coarse, weight - coarse], axis=1)
    weights[node.input[1]].CopyFrom(numpy_helper.from_array(wide, node.input[1]))
    nodes = list(graph.node)
    at = nodes.index(first)
    replace_items(graph.node, [*nodes[:at], *parts, *nodes[at:]])
    return True


def _split(graph: onnx.GraphProto, x: str, steps: float, axis: int) -> Sequence[onnx.NodeProto]:
    """Nodes that make of ``x`` its multiples of ``1 / steps``, what remains, and the multiples again, as channels."""
    for name, value in (("steps", steps), ("step", 1 / steps)):
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), f"{x}/{name}"))
    scaled, floor, coarse, fine = (f"{x}/{name}" for name in ("scaled", "floor", "coarse", "fine"))
    return [
        helper.make_node("Mul", [x, f"{x}/steps"], [scaled]),
        helper.make_node("Floor", [scaled], [floor]),
        helper.make_node("Mul", [floor, f"{x}/step"], [coarse]),
        helper.make_node("Sub", [x, coarse], [fine]),
        helper.make_node("Concat", [coarse, fine, coarse], [f"{x}/parts"], axis=axis),
    ]
