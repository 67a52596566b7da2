"""Products of bytes on x86 processors without VNNI, which add two of them in 16 bits.

There the instruction for bytes multiplies unsigned by signed ones and adds each two neighbours; a sum beyond 32,767 is
cut off, and the network gives other numbers than elsewhere. Kernels that are exact whatever the weights take a third
more time. But where no two neighbours among the weights add up to more than 128, no sum can be cut off.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from runtime.faces import FloatArray
from runtime.onnx_graph import attribute, mentions

PAIR_MOST = 128
"""255 * 128 fits into 16 bits, 255 * 129 does not (Intel's manual, PMADDUBSW)."""

_QUANTISED_OPERATORS = (b"QLinear", b"Integer")
_OPERATORS = ("Conv", "Gemm", "MatMul")


def is_quantised(path: Path) -> bool:
    """Whether the ONNX file, which is not empty, may hold quantised weights; reads it without parsing it."""
    return mentions(path, b"DequantizeLinear", *_QUANTISED_OPERATORS)


def may_saturate(path: Path) -> bool:
    """Whether a sum in the network of the ONNX file could be cut off.

    True as well where that cannot be told: of operators that are quantised themselves, and of weights that a node
    computes.
    """
    if not is_quantised(path):
        return False
    if mentions(path, *_QUANTISED_OPERATORS):
        return True
    graph = onnx.load(path).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    float_from = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type not in _OPERATORS or node.input[0] not in float_from or node.input[1] not in float_from:
            continue
        tensor = constants.get(float_from[node.input[1]])
        if tensor is None:
            return True
        weights = numpy_helper.to_array(tensor)
        if weights.dtype != np.int8 or (largest_pairs(weights.astype(np.float32), node) > PAIR_MOST).any():
            return True
    return False


def largest_pairs(weights: FloatArray, node: onnx.NodeProto) -> FloatArray:
    """For each output of ``node`` the greatest amount that two neighbours among its weights add up to.

    Args:
        weights: float32, of the node, a ``Conv``, ``Gemm`` or ``MatMul``: (outputs, inputs, ...), (inputs, outputs),
            or (outputs, inputs) where ``transB`` is set.
        node: says which of these.

    Returns:
        (outputs,) float32; zeros where there is one input.
    """
    largest = np.zeros(weights.shape[output_axis(weights, node)], weights.dtype)
    for rows in _orders(weights, node):
        even = rows.shape[1] // 2 * 2
        if even:
            np.maximum(largest, np.abs(rows[:, :even:2] + rows[:, 1:even:2]).max(axis=1), out=largest)
    return largest


def output_axis(weights: FloatArray, node: onnx.NodeProto) -> int:
    """Which axis of the weights of ``node`` counts its outputs."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)):
        return 0
    return weights.ndim - 1


def _orders(weights: FloatArray, node: onnx.NodeProto) -> list[FloatArray]:
    """The weights of each output in every order in which kernels go through them: channels last, and first."""
    rows = np.moveaxis(weights, output_axis(weights, node), 0)
    orders = [rows, np.moveaxis(rows, 1, -1)] if node.op_type == "Conv" else [rows]
    return [order.reshape(len(rows), -1) for order in orders]
