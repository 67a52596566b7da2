"""Graph passes that take the rounding of an int8 network away, so that its weights are served in float32.

Unlike other passes they do not keep the very numbers: what they drop is the error that int8 arithmetic added as the
source ran. Each is a pure function from model to model.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from convert.passes import constants_of, copy_model, producers_of, prune, without
from runtime.onnx_graph import only_reader

_INTEGERS = (TensorProto.INT8, TensorProto.UINT8)


def drop_dynamic_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """``DynamicQuantizeLinear`` and the ``DequantizeLinear`` behind it vanish; the number itself goes on.

    TensorFlow Lite rounds activations so where only weights were quantised ("dynamic range").
    """
    model = copy_model(model)
    producers = producers_of(model)
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        rounded = producers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if rounded is not None and rounded.op_type == "DynamicQuantizeLinear" and node.input[0] == rounded.output[0]:
            renamed[node.output[0]] = rounded.input[0]
    return without(model, renamed)


def float_ends(model: onnx.ModelProto) -> onnx.ModelProto:
    """An int8 input, with the ``Cast``, ``Sub`` and ``Mul`` that make it real, and an int8 output become float32."""
    model = copy_model(model)
    constants, producers = constants_of(model), producers_of(model)
    renamed: dict[str, str] = {}
    for value in model.graph.input:
        if value.type.tensor_type.elem_type not in _INTEGERS:
            continue
        start = value.name
        while (turn := only_reader(model.graph, start)) is not None and turn.op_type == "Transpose":
            start = turn.output[0]
        last = start
        for operator in ("Cast", "Sub", "Mul"):
            reader = only_reader(model.graph, last)
            if reader is None or reader.op_type != operator:
                return model
            if any(name != last and name not in constants for name in reader.input):
                return model
            last = reader.output[0]
        renamed[last] = start
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    for value in model.graph.output:
        rounded = producers.get(value.name)
        if rounded is not None and rounded.op_type == "QuantizeLinear":
            value.name = rounded.input[0]
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return without(model, renamed)


ROUNDING_PASSES = (drop_dynamic_rounding, float_ends, prune)
