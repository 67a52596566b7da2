"""Graph passes: pure functions from model to model, each of which keeps what the network computes.

A pass copies the model that it is given. Passes look at the top-level graph only; subgraphs are left as they are,
and what a subgraph refers to is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper, version_converter
from onnx.reference import ReferenceEvaluator

Array: TypeAlias = npt.NDArray[Any]
Pass: TypeAlias = Callable[[onnx.ModelProto], onnx.ModelProto]

_NOT_CONSTANT = frozenset({"RandomNormal", "RandomUniform", "Bernoulli", "Multinomial", "If", "Loop", "Scan"})


def apply(model: onnx.ModelProto, passes: Iterable[Pass]) -> onnx.ModelProto:
    """Run ``passes`` in order."""
    for one in passes:
        model = one(model)
    return model


def fold_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace every node whose inputs are all initialisers by an initialiser with its value.

    That takes ``Constant``, ``Identity`` over weights, and ``DequantizeLinear`` and ``Reshape`` of stored weights.
    The values come from ONNX's reference implementation.
    """
    model = copy_model(model)
    constants = constants_of(model)
    kept = []
    for node in model.graph.node:
        foldable = node.op_type not in _NOT_CONSTANT and not _has_subgraph(node)
        if not foldable or not all(name in constants for name in node.input if name):
            kept.append(node)
            continue
        for name, value in zip(_present(node.output), _evaluate(node, constants, model), strict=True):
            tensor = numpy_helper.from_array(np.array(value, order="C"), name)
            constants[name] = tensor
            model.graph.initializer.append(tensor)
    replace_items(model.graph.node, kept)
    return model


def drop_single_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove ``block_size`` from ``DequantizeLinear`` nodes with one scale, shape (1,), which ONNX Runtime refuses."""
    model = copy_model(model)
    constants = constants_of(model)
    for node in model.graph.node:
        scale = constants.get(node.input[1]) if node.op_type == "DequantizeLinear" else None
        if scale is not None and list(scale.dims) == [1]:
            replace_items(node.attribute, [a for a in node.attribute if a.name not in {"block_size", "axis"}])
    return model


def drop_passthrough(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove ``Identity`` and ``Dropout`` nodes; at inference both hand on what they get.

    A node whose result is an output of the graph stays, and so does a ``Dropout`` whose mask is used.
    """
    model = copy_model(model)
    outputs = {output.name for output in model.graph.output}
    used = uses_of(model)
    renamed: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        is_plain = node.op_type in {"Identity", "Dropout"} and not any(used.get(name) for name in node.output[1:])
        if is_plain and node.output[0] not in outputs and node.output[0] not in _subgraph_names(model):
            renamed[node.output[0]] = renamed.get(node.input[0], node.input[0])
            continue
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        kept.append(node)
    replace_items(model.graph.node, kept)
    return model


def fold_batchnorm_after_conv(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold ``BatchNormalization`` into the ``Conv`` before it, where nothing else reads the convolution.

    Exact for any padding: the normalisation acts on each output channel, after the sum.
    """
    return _fold_batchnorm(model, "Conv", _into_conv)


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
        if not _is_plain_gemm(gemm) or not _all_constant(gemm.input[1:], constants):
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


def prune(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove what no output depends on: nodes, initialisers, inputs; and initialisers out of the inputs."""
    model = copy_model(model)
    graph = model.graph
    needed = {output.name for output in graph.output} | _subgraph_names(model)
    kept = []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            needed.update(name for name in node.input if name)
            kept.append(node)
    replace_items(graph.node, kept[::-1])
    replace_items(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed])
    constants = {tensor.name for tensor in graph.initializer}
    replace_items(graph.input, [value for value in graph.input if value.name in needed - constants])
    del graph.value_info[:]
    return model


def name_batch(model: onnx.ModelProto, name: str = "batch") -> onnx.ModelProto:
    """Declare the first dimension of every input and output as ``name``, of any length.

    Whether the nodes between really take any length is for a run with several lengths to show.
    """
    model = copy_model(model)
    for value in (*model.graph.input, *model.graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim:
            shape.dim[0].ClearField("dim_value")
            shape.dim[0].dim_param = name
    del model.graph.value_info[:]
    return model


def lower_opset(model: onnx.ModelProto, target: int, ir_version: int) -> onnx.ModelProto:
    """Declare an older opset, by ONNX's own version converter, and an older file format; never newer ones.

    Raises:
        RuntimeError: an operator of the model does not exist in that opset.
    """
    model = copy_model(model)
    current = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if current > target:
        model.ir_version = max(model.ir_version, 4)
        model = version_converter.convert_version(model, target)
        model.ir_version = ir_version
    return model


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """A deep copy."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def replace_items(field: Any, items: Sequence[Any]) -> None:
    """Put copies of ``items`` in the place of what a repeated field holds."""
    copies = [type(item)() for item in items]
    for copy, item in zip(copies, items, strict=True):
        copy.CopyFrom(item)
    del field[:]
    field.extend(copies)


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
    if not _all_constant(conv.input[1:], constants):
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
    if not _is_plain_gemm(gemm) or not _all_constant(gemm.input[1:], constants):
        return False
    weight, bias = _gemm_weights(gemm, constants)
    _set_gemm(model, gemm, weight * factor[:, None], bias * factor + shift)
    return True


def _scale_and_shift(norm: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> tuple[Array, Array] | None:
    """``BatchNormalization`` at inference as ``x * factor + shift``, (channels,) float64 each."""
    if not _all_constant(norm.input[1:5], constants) or attribute(norm, "training_mode", 0):
        return None
    gamma, beta, mean, variance = (
        numpy_helper.to_array(constants[name]).astype(np.float64) for name in norm.input[1:5]
    )
    factor = gamma / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    return factor, beta - mean * factor


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
    taken = {tensor.name for tensor in model.graph.initializer}
    stem = f"{node.output[0]}_{'weight' if index == 1 else 'bias'}_folded"
    name = next(n for n in (stem, *(f"{stem}_{i}" for i in range(1, 1000))) if n not in taken)
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
    while len(node.input) <= index:
        node.input.append("")
    node.input[index] = name


def _evaluate(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], model: onnx.ModelProto) -> Sequence[Array]:
    names = _present(dict.fromkeys(node.input))
    graph = onnx.helper.make_graph(
        [node],
        "constant",
        [],
        [onnx.ValueInfoProto(name=name) for name in _present(node.output)],
        [constants[n] for n in names],
    )
    single = onnx.helper.make_model(graph, opset_imports=list(model.opset_import))
    return [np.asarray(value) for value in ReferenceEvaluator(single).run(None, {})]


def constants_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initialisers by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _all_constant(names: Iterable[str], constants: dict[str, onnx.TensorProto]) -> bool:
    return all(name in constants for name in names if name)


def producers_of(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The node that makes each value."""
    return {name: node for node in model.graph.node for name in node.output if name}


def uses_of(model: onnx.ModelProto) -> Counter[str]:
    """How often each value is read: by nodes, by subgraphs, and as an output of the graph."""
    uses = Counter(name for node in model.graph.node for name in node.input if name)
    uses.update(output.name for output in model.graph.output)
    uses.update(_subgraph_names(model))
    return uses


def _has_subgraph(node: onnx.NodeProto) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _subgraph_names(model: onnx.ModelProto) -> set[str]:
    """Every name that a node of a subgraph reads."""
    names: set[str] = set()
    pending = [node for node in model.graph.node if _has_subgraph(node)]
    while pending:
        for attribute in pending.pop().attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                names.update(name for node in graph.node for name in node.input)
                names.update(output.name for output in graph.output)
                pending.extend(node for node in graph.node if _has_subgraph(node))
    return names


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of an attribute, or ``default``."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default


def _present(names: Iterable[str]) -> list[str]:
    """``names`` without the empty ones, which stand for optional values left out."""
    return [name for name in names if name]
