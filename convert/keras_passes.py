"""Graph passes for what tf2onnx makes of Keras networks; see :mod:`convert.passes` for what a pass is."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from convert.passes import Array, constants_of, copy_model, producers_of, uses_of
from convert.shape_passes import constant_reshape, drop_casts, merge_transposes
from runtime.onnx_graph import attribute, replace_items

_TO_NHWC = [0, 2, 3, 1]


def fuse_prelu(model: onnx.ModelProto) -> onnx.ModelProto:
    """``Relu(x) + slope * Relu(-x)``, as Keras' PReLU arrives, becomes one ``PRelu``.

    Keras computes ``max(x, 0) - alpha * max(-x, 0)``; tf2onnx stores ``-alpha``, ONNX' ``PRelu`` wants ``alpha``.
    """
    model = copy_model(model)
    constants, producers, used = constants_of(model), producers_of(model), uses_of(model)
    for add in list(model.graph.node):
        if add.op_type != "Add":
            continue
        for plus, minus in ((add.input[0], add.input[1]), (add.input[1], add.input[0])):
            found = _prelu(producers.get(plus), producers.get(minus), constants, producers)
            if found is None or used[plus] != 1 or used[minus] != 1:
                continue
            picture, slope = found
            name = f"{add.output[0]}_slope"
            model.graph.initializer.append(numpy_helper.from_array(slope, name))
            fused = onnx.helper.make_node("PRelu", [picture, name], list(add.output), name=add.name)
            add.CopyFrom(fused)
            break
    return model


def affine_to_batchnorm(model: onnx.ModelProto) -> onnx.ModelProto:
    """``Mul`` and ``Add`` of a number for each channel, as a BatchNormalization often arrives, become one again.

    One node is faster than two, and the passes that fold a BatchNormalization see it.
    """
    model = copy_model(model)
    constants, producers, used = constants_of(model), producers_of(model), uses_of(model)
    shapes = _shapes(model)
    gone: set[str] = set()
    for add in model.graph.node:
        shift = _channel_operand(add, "Add", constants)
        mul = producers.get(shift[0]) if shift is not None else None
        factor = _channel_operand(mul, "Mul", constants) if mul is not None else None
        if shift is None or mul is None or factor is None or used[mul.output[0]] != 1:
            continue
        shape = shapes.get(factor[0], [])
        if len(shape) != 4 or shape[1] != len(factor[1]) or len(shift[1]) != len(factor[1]):
            continue
        zeros, ones = np.zeros(shape[1]), np.ones(shape[1])
        names = [f"{add.output[0]}_{part}" for part in ("factor", "shift", "mean", "variance")]
        for name, value in zip(names, (factor[1], shift[1], zeros, ones), strict=True):
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        gone.add(mul.output[0])
        add.CopyFrom(
            onnx.helper.make_node(
                "BatchNormalization", [factor[0], *names], [add.output[0]], name=add.name, epsilon=0.0
            )
        )
    replace_items(model.graph.node, [node for node in model.graph.node if node.output[0] not in gone])
    return model


def matmul_to_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """``MatMul`` by a matrix, a ``Mul`` and an ``Add`` of numbers after it (each may be absent) become one ``Gemm``.

    Only where the other side has two axes, as after ``Flatten`` or a ``Reshape`` to two.
    """
    model = copy_model(model)
    for matmul in [node for node in model.graph.node if node.op_type == "MatMul"]:
        constants, producers = constants_of(model), producers_of(model)
        weight = _value(constants, matmul.input[1])
        if weight is None or weight.ndim != 2 or not _is_flat(producers.get(matmul.input[0]), constants):
            continue
        factor, shift = np.ones(weight.shape[1]), np.zeros(weight.shape[1])
        last, gone = matmul, []
        while (step := _next_affine(model, last, constants, weight.shape[1])) is not None:
            node, value = step
            factor, shift = (factor * value, shift * value) if node.op_type == "Mul" else (factor, shift + value)
            gone.append(last.output[0])
            last = node
        output = last.output[0]
        names = [f"{output}_matrix", f"{output}_bias"]
        for name, array in zip(names, (weight * factor, shift), strict=True):
            model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        last.CopyFrom(onnx.helper.make_node("Gemm", [matmul.input[0], *names], [output], name=matmul.name))
        replace_items(model.graph.node, [node for node in model.graph.node if node.output[0] not in gone])
    return model


def reshape_to_flatten(model: onnx.ModelProto) -> onnx.ModelProto:
    """``Reshape`` to two axes, of which the first is the batch, becomes ``Flatten``, which takes any batch."""
    model = copy_model(model)
    constants = constants_of(model)
    readers = {name for node in model.graph.node if node.op_type == "Gemm" for name in node.input[:1]}
    for node in model.graph.node:
        if _is_flat(node, constants) and node.op_type == "Reshape" and node.output[0] in readers:
            node.CopyFrom(onnx.helper.make_node("Flatten", [node.input[0]], list(node.output), name=node.name, axis=1))
    return model


def fold_transpose_before_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """``Transpose`` to channels last, ``Flatten``, ``Gemm``: the matrix takes the order of channels first instead."""
    model = copy_model(model)
    constants, producers, used = constants_of(model), producers_of(model), uses_of(model)
    shapes = _shapes(model)
    for gemm in [node for node in model.graph.node if node.op_type == "Gemm"]:
        flatten = producers.get(gemm.input[0])
        turn = producers.get(flatten.input[0]) if flatten is not None and flatten.op_type == "Flatten" else None
        if flatten is None or turn is None or turn.op_type != "Transpose" or attribute(turn, "perm", []) != _TO_NHWC:
            continue
        weight, shape = _value(constants, gemm.input[1]), shapes.get(turn.input[0], [])
        if weight is None or used[turn.output[0]] != 1 or used[flatten.output[0]] != 1 or len(shape) != 4:
            continue
        if attribute(gemm, "transB", 0) or not all(shape[1:]):
            continue
        channels, height, width = shape[1:]
        ordered = weight.reshape(height, width, channels, -1).transpose(2, 0, 1, 3).reshape(weight.shape)
        name = f"{gemm.output[0]}_channels_first"
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(ordered), name))
        gemm.input[1] = name
        flatten.input[0] = turn.input[0]
    return model


def free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """``Reshape`` to a fixed batch of one keeps whatever batch comes instead."""
    model = copy_model(model)
    constants = constants_of(model)
    for node in model.graph.node:
        target = _value(constants, node.input[1]) if node.op_type == "Reshape" else None
        if target is None or len(target) < 2 or target[0] != 1:
            continue
        free = target.copy()
        free[0] = 0 if (target == -1).any() else -1
        name = f"{node.output[0]}_shape"
        model.graph.initializer.append(numpy_helper.from_array(free, name))
        node.input[1] = name
    return model


def fold_pad_into_conv(model: onnx.ModelProto) -> onnx.ModelProto:
    """A ``Pad`` of zeros around the picture becomes part of the ``Conv`` behind it."""
    model = copy_model(model)
    constants, producers, used = constants_of(model), producers_of(model), uses_of(model)
    for conv in [node for node in model.graph.node if node.op_type == "Conv"]:
        pad = producers.get(conv.input[0])
        if pad is None or pad.op_type != "Pad" or used[pad.output[0]] != 1:
            continue
        edges = _value(constants, pad.input[1])
        fill = _value(constants, pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
        if edges is None or fill is None or edges.shape != (8,) or edges[[0, 1, 4, 5]].any() or (edges < 0).any():
            continue
        if fill.any() or attribute(pad, "mode", b"constant") != b"constant" or len(pad.input) > 3:
            continue
        if attribute(conv, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            continue
        own = attribute(conv, "pads", [0, 0, 0, 0])
        joined = [int(edge) + int(mine) for edge, mine in zip(edges[[2, 3, 6, 7]], own, strict=True)]
        kept = [entry for entry in conv.attribute if entry.name not in {"pads", "auto_pad"}]
        replace_items(conv.attribute, [*kept, onnx.helper.make_attribute("pads", joined)])
        conv.input[0] = pad.input[0]
    return model


KERAS_PASSES = (
    drop_casts,
    merge_transposes,
    fuse_prelu,
    fold_pad_into_conv,
    affine_to_batchnorm,
    free_batch,
    constant_reshape,
    matmul_to_gemm,
    reshape_to_flatten,
    fold_transpose_before_gemm,
)
"""In the order in which they meet what the ones before left."""


def _prelu(
    relu: onnx.NodeProto | None,
    product: onnx.NodeProto | None,
    constants: dict[str, onnx.TensorProto],
    producers: dict[str, onnx.NodeProto],
) -> tuple[str, Array] | None:
    """What goes in and ALPHA, if the two summands are Keras' PReLU."""
    if relu is None or product is None or relu.op_type != "Relu" or product.op_type != "Mul":
        return None
    for inner, factor in ((product.input[0], product.input[1]), (product.input[1], product.input[0])):
        slope, negative = _value(constants, factor), producers.get(inner)
        if slope is None or negative is None or negative.op_type != "Relu":
            continue
        negation = producers.get(negative.input[0])
        if negation is not None and negation.op_type == "Neg" and negation.input[0] == relu.input[0]:
            trimmed = slope.reshape(slope.shape[1:]) if slope.ndim == 4 and slope.shape[0] == 1 else slope
            return relu.input[0], np.ascontiguousarray(-trimmed, np.float32)
    return None


def _channel_operand(
    node: onnx.NodeProto, operator: str, constants: dict[str, onnx.TensorProto]
) -> tuple[str, Array] | None:
    """The value that ``node`` changes, and the (channels,) numbers by which it does; None when it is no such node."""
    if node.op_type != operator:
        return None
    for changed, other in ((node.input[0], node.input[1]), (node.input[1], node.input[0])):
        value = _value(constants, other)
        if value is not None and changed not in constants and value.shape[-3:] == (value.size, 1, 1):
            return changed, value.reshape(-1)
    return None


def _next_affine(
    model: onnx.ModelProto, node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], width: int
) -> tuple[onnx.NodeProto, Array] | None:
    """The only reader of ``node`` if it multiplies by, or adds, one number or ``width`` numbers; and these."""
    readers = [reader for reader in model.graph.node if node.output[0] in reader.input]
    if len(readers) != 1 or any(output.name == node.output[0] for output in model.graph.output):
        return None
    reader = readers[0]
    if reader.op_type not in {"Mul", "Add"}:
        return None
    other = next((name for name in reader.input if name != node.output[0]), "")
    value = _value(constants, other)
    if value is None or value.size not in (1, width) or value.shape[-1:] not in ((), (1,), (width,)):
        return None
    return reader, value.astype(np.float64).reshape(-1)


def _is_flat(node: onnx.NodeProto | None, constants: dict[str, onnx.TensorProto]) -> bool:
    if node is None:
        return False
    if node.op_type == "Flatten":
        return bool(attribute(node, "axis", 1) == 1)
    target = _value(constants, node.input[1]) if node.op_type == "Reshape" else None
    return target is not None and len(target) == 2 and int(target[0]) in (-1, 0) and int(target[1]) > 0


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    inferred = onnx.shape_inference.infer_shapes(model)
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}


def _value(constants: dict[str, onnx.TensorProto], name: str) -> Array | None:
    return numpy_helper.to_array(constants[name]) if name in constants else None
