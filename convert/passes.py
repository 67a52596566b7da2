"""Graph passes: pure functions from model to model, each of which keeps what the network computes.

A pass copies the model that it is given. Passes look at the top-level graph only; subgraphs are left as they are,
and what a subgraph refers to is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper, version_converter
from onnx.reference import ReferenceEvaluator

from runtime.onnx_graph import replace_items

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
    The values come from ONNX's reference implementation; a node that it does not know in this opset stays.
    """
    model = copy_model(model)
    constants = constants_of(model)
    kept = []
    for node in model.graph.node:
        foldable = node.op_type not in _NOT_CONSTANT and not _has_subgraph(node)
        if not foldable or not all(name in constants for name in node.input if name):
            kept.append(node)
            continue
        values = _evaluate(node, constants, model)
        if values is None:
            kept.append(node)
            continue
        for name, value in zip(_present(node.output), values, strict=True):
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
    for node in model.graph.node:
        is_plain = node.op_type in {"Identity", "Dropout"} and not any(used.get(name) for name in node.output[1:])
        if is_plain and node.output[0] not in outputs and node.output[0] not in _subgraph_names(model):
            renamed[node.output[0]] = renamed.get(node.input[0], node.input[0])
    return without(model, renamed)


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


def without(model: onnx.ModelProto, renamed: Mapping[str, str]) -> onnx.ModelProto:
    """Change ``model``: whoever read a renamed value reads the other one, and the node that made it goes."""
    kept = []
    for node in model.graph.node:
        if node.output[0] in renamed:
            continue
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        kept.append(node)
    replace_items(model.graph.node, kept)
    return model


def free_name(stem: str, taken: Iterable[str]) -> str:
    """``stem``, or with the first number behind it that makes it one that is not ``taken``."""
    return next(name for name in (stem, *(f"{stem}_{index}" for index in range(1, 10_000))) if name not in taken)


def _evaluate(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], model: onnx.ModelProto
) -> Sequence[Array] | None:
    names = _present(dict.fromkeys(node.input))
    graph = onnx.helper.make_graph(
        [node],
        "constant",
        [],
        [onnx.ValueInfoProto(name=name) for name in _present(node.output)],
        [constants[n] for n in names],
    )
    single = onnx.helper.make_model(graph, opset_imports=list(model.opset_import))
    try:
        evaluator = ReferenceEvaluator(single)
    except RuntimeError:
        return None
    return [np.asarray(value) for value in evaluator.run(None, {})]


def constants_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initialisers by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def all_constant(names: Iterable[str], constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether every value that is there is an initialiser."""
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


def _present(names: Iterable[str]) -> list[str]:
    """``names`` without the empty ones, which stand for optional values left out."""
    return [name for name in names if name]
