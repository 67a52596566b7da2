"""Graph passes that fold a BatchNormalization into its neighbours; see :mod:`convert.passes` for what a pass is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import numpy_helper

from convert.passes import Array, all_constant, constants_of, copy_model, free_name, producers_of, uses_of
from runtime.onnx_graph import attribute, replace_items


def fold_batchnorm_after_conv(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold ``BatchNormalization`` into the ``Conv`` before it, where nothing else reads the convolution.

    Exact for any padding: the normalisation acts on each output channel, after the sum.
    """
    return _fold_batchnorm(model, "Conv", _into_conv)


def fold_batchnorm_before_conv(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold ``BatchNormalization`` into the ``Conv`` behind it, where that pads nothing and nothing else reads the norm.

    With zeros around the picture it would not be exact: they lie behind the normalisation and are not shifted by it.
    """
    model = copy_model(model)
    constants, used, producers = constants_of(model), uses_of(model), producers_of(model)
    gone: set[str] = set()
    for conv in model.graph.node:
        norm = producers.get(conv.input[0]) if conv.op_type == "Conv" else None
        if norm is None or norm.op_type != "BatchNormalization" or used[norm.output[0]] != 1 or _pads(conv):
            continue
        scaled = _scale_and_shift(norm, constants) if all_constant(conv.input[1:], constants) else None
        if scaled is None:
            continue
        weight = numpy_helper.to_array(constants[conv.input[1]])
        if weight.dtype != np.float32:
            continue
        # A group of output channels reads its own part of the input channels.
        groups = attribute(conv, "group", 1)
        factor, shift = (part.reshape(groups, 1, -1) for part in scaled)
        wide = weight.astype(np.float64).reshape(groups, len(weight) // groups, weight.shape[1], -1)
        added = (wide.sum(axis=3) * shift).sum(axis=2).reshape(-1)
        _set_input(model, conv, 1, (wide * factor[..., None]).reshape(weight.shape))
        _set_input(model, conv, 2, _optional(conv, 2, constants, len(weight)) + added)
        conv.input[0] = norm.input[0]
        gone.add(norm.output[0])
    replace_items(model.graph.node, [node for node in model.graph.node if node.output[0] not in gone])
    return model


def fold_batchnorm_after_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold ``BatchNormalization`` into the ``Gemm`` before it, where nothing else reads the product."""
    return _fold_batchnorm(model, "Gemm", _into_gemm)


def fold_batchnorm_before_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold ``BatchNormalization`` -> ``Flatten`` -> ``Gemm`` into the ``Gemm``.

    Exact: there is no padding between. Each channel's factor and shift meet the columns that the channel's pixels
    become, so the shift turns into a part of the bias.
    """
    model = copy_model(model)
    constants, used, producers = constants_of(model), uses_of(model), producers_of(model)
    gone: set[str] = set()
    for gemm in model.graph.node:
        flatten = producers.get(gemm.input[0]) if gemm.op_type == "Gemm" else None
        norm = producers.get(flatten.input[0]) if flatten is not None and flatten.op_type == "Flatten" else None
        if flatten is None or norm is None or norm.op_type != "BatchNormalization":
            continue
        between = (norm.output[0], flatten.output[0])
        if any(used.get(name) != 1 for name in between) or attribute(flatten, "axis", 1) != 1:
            continue
        if not _is_plain_gemm(gemm) or not all_constant(gemm.input[1:], constants):
            continue
        scaled = _scale_and_shift(norm, constants)
        if scaled is None:
            continue
        factor, shift = scaled
        weight, bias = _gemm_weights(gemm, constants)
        pixels, rest = divmod(weight.shape[1], len(factor))
        if rest:
            continue
        _set_gemm(
            model,
            gemm,
            weight * np.repeat(factor, pixels)[None, :],
            bias + weight @ np.repeat(shift, pixels),
        )
        flatten.input[0] = norm.input[0]
        gone.add(norm.output[0])
    replace_items(model.graph.node, [node for node in model.graph.node if node.output[0] not in gone])
    return model


def _fold_batchnorm(
    model: onnx.ModelProto,
    op_type: str,
    fold: Callable[[onnx.ModelProto, onnx.NodeProto, dict[str, onnx.TensorProto], Array, Array], bool],
) -> onnx.ModelProto:
    model = copy_model(model)
    constants, used, producers = constants_of(model), uses_of(model), producers_of(model)
    gone: set[str] = set()
    for norm in model.graph.node:
        before = producers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if before is None or before.op_type != op_type or used.get(before.output[0]) != 1:
            continue
        scaled = _scale_and_shift(norm, constants)
        if scaled is not None and fold(model, before, constants, *scaled):
            gone.add(norm.output[0])
            before.output[0] = norm.output[0]
    # The producer now bears the output's name, so the node to drop is told apart by its operator.
    kept = [n for n in model.graph.node if n.op_type != "BatchNormalization" or n.output[0] not in gone]
    replace_items(model.graph.node, kept)
    return model


def _into_conv(
    model: onnx.ModelProto,
    conv: onnx.NodeProto,
    constants: dict[str, onnx.TensorProto],
    factor: Array,
    shift: Array,
) -> bool:
    if not all_constant(conv.input[1:], constants):
        return False
    weight = numpy_helper.to_array(constants[conv.input[1]])
    bias = _optional(conv, 2, constants, len(weight))
    if weight.dtype != np.float32:
        return False
    wide = weight.astype(np.float64) * factor.reshape(-1, *[1] * (weight.ndim - 1))
    _set_input(model, conv, 1, wide)
    _set_input(model, conv, 2, bias * factor + shift)
    return True


def _into_gemm(
    model: onnx.ModelProto,
    gemm: onnx.NodeProto,
    constants: dict[str, onnx.TensorProto],
    factor: Array,
    shift: Array,
) -> bool:
    if not _is_plain_gemm(gemm) or not all_constant(gemm.input[1:], constants):
        return False
    weight, bias = _gemm_weights(gemm, constants)
    _set_gemm(model, gemm, weight * factor[:, None], bias * factor + shift)
    return True


def _scale_and_shift(norm: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> tuple[Array, Array] | None:
    """``BatchNormalization`` at inference as ``x * factor + shift``, (channels,) float64 each."""
    if not all_constant(norm.input[1:5], constants) or attribute(norm, "training_mode", 0):
        return None
    gamma, beta, mean, variance = (
        numpy_helper.to_array(constants[name]).astype(np.float64) for name in norm.input[1:5]
    )
    factor = gamma / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    return factor, beta - mean * factor


def _pads(conv: onnx.NodeProto) -> bool:
    return any(attribute(conv, "pads", [])) or attribute(conv, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")


def _is_plain_gemm(gemm: onnx.NodeProto) -> bool:
    return bool(
        attribute(gemm, "alpha", 1.0) == 1.0
        and attribute(gemm, "beta", 1.0) == 1.0
        and not attribute(gemm, "transA", 0)
    )


def _gemm_weights(gemm: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> tuple[Array, Array]:
    """Weight as (outputs, inputs) float64 and bias as (outputs,) float64."""
    weight = numpy_helper.to_array(constants[gemm.input[1]]).astype(np.float64)
    if not attribute(gemm, "transB", 0):
        weight = weight.T
    return weight, _optional(gemm, 2, constants, len(weight))


def _set_gemm(model: onnx.ModelProto, gemm: onnx.NodeProto, weight: Array, bias: Array) -> None:
    _set_input(model, gemm, 1, weight if attribute(gemm, "transB", 0) else weight.T)
    _set_input(model, gemm, 2, bias)


def _optional(node: onnx.NodeProto, index: int, constants: dict[str, onnx.TensorProto], length: int) -> Array:
    if len(node.input) <= index or not node.input[index]:
        return np.zeros(length)
    value = numpy_helper.to_array(constants[node.input[index]]).astype(np.float64)
    return np.broadcast_to(value.reshape(-1), (length,))


def _set_input(model: onnx.ModelProto, node: onnx.NodeProto, index: int, value: Array) -> None:
    """Give ``node`` an initialiser of its own; what the old one was stays for others that read it."""
    name = free_name(f"{node.output[0]}_{'weight' if index == 1 else 'bias'}_folded", constants_of(model))
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
    while len(node.input) <= index:
        node.input.append("")
    node.input[index] = name
