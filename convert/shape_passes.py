"""Graph passes that take out what only moves or renames numbers; see :mod:`convert.passes` for what a pass is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from convert.passes import constants_of, copy_model, producers_of, without
from runtime.onnx_graph import attribute, replace_items

Dimension: TypeAlias = int | str


def constant_reshape(model: onnx.ModelProto) -> onnx.ModelProto:
    """A ``Reshape`` that flattens each picture, its target computed from the input's shape, gets a constant target.

    Keras 3 flattens so, with five nodes that read the shape, pick the batch, and put it before the product of the rest.
    """
    model = copy_model(model)
    constants, types = constants_of(model), _types(model)
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.input[1] in constants:
            continue
        before, after = (types.get(name, (0, []))[1] for name in (node.input[0], node.output[0]))
        if len(before) < 2 or len(after) != 2 or not all(isinstance(size, int) for size in (*before[1:], after[1])):
            continue
        width = math.prod(int(size) for size in before[1:])
        if after[1] == width:
            name = f"{node.output[0]}_target"
            model.graph.initializer.append(numpy_helper.from_array(np.array([-1, width], np.int64), name))
            node.input[1] = name
    return model


def drop_casts(model: onnx.ModelProto) -> onnx.ModelProto:
    """A ``Cast`` to the type that the number has already vanishes, unless it gives an output of the graph."""
    model = copy_model(model)
    types, outputs = _types(model), {output.name for output in model.graph.output}
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.output[0] not in outputs:
            known = types.get(node.input[0])
            if known is not None and known[0] == attribute(node, "to", 0):
                renamed[node.output[0]] = renamed.get(node.input[0], node.input[0])
    return without(model, renamed)


def merge_transposes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Two ``Transpose`` in a row become one, and one that turns nothing vanishes, as where one undoes the other."""
    model = copy_model(model)
    outputs = {output.name for output in model.graph.output}
    renamed: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        turn = list(attribute(node, "perm", [])) if node.op_type == "Transpose" else []
        if turn:
            found = _earlier(model, node, len(turn))
            if found is not None:
                start, first = found
                turn = [first[axis] for axis in turn]
                node.CopyFrom(onnx.helper.make_node("Transpose", [start], list(node.output), name=node.name, perm=turn))
            if turn == sorted(turn) and node.output[0] not in outputs:
                renamed[node.output[0]] = node.input[0]
                continue
        kept.append(node)
    replace_items(model.graph.node, kept)
    return model


def _earlier(model: onnx.ModelProto, node: onnx.NodeProto, rank: int) -> tuple[str, list[int]] | None:
    """The value that the ``Transpose`` before ``node`` turns, and how; None when there is none."""
    before = producers_of(model).get(node.input[0])
    if before is None or before.op_type != "Transpose":
        return None
    turn = list(attribute(before, "perm", []))
    return (before.input[0], turn) if len(turn) == rank else None


def _types(model: onnx.ModelProto) -> dict[str, tuple[int, Sequence[Dimension]]]:
    """Element type and dimensions of each value that can be inferred; a dimension of any length is a string."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found: dict[str, tuple[int, Sequence[Dimension]]] = {}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        tensor = value.type.tensor_type
        sizes = [size.dim_value if size.HasField("dim_value") else size.dim_param for size in tensor.shape.dim]
        found[value.name] = (tensor.elem_type, sizes)
    return found
