"""Which layers lose most by int8, measured for each alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from convert.passes import copy_model
from convert.ranges import LEVELS, Range
from convert.watch import quiet_session
from runtime.faces import FloatArray
from runtime.onnx_graph import replace_items

LAYING_OUT = 100
"""To lay a number out anew takes as long as so many multiplications."""


def delicate_first(
    model: onnx.ModelProto, ranges: Mapping[str, Range], nodes: Sequence[str], pictures: FloatArray
) -> list[str]:
    """``nodes`` in the order in which it pays to keep them in float: by what int8 loses there for what float costs.

    Args:
        model: as :func:`convert.quantise.prepare` gives it.
        ranges: of what goes into ``nodes`` and comes out of them.
        nodes: names of convolutions and products.
        pictures: (n, ...) float32, network inputs; a few suffice.
    """
    chosen = {node.name: node for node in model.graph.node if node.name in nodes}
    switched = _Switched(model, ranges)
    work = _work(model)
    expected = switched.embed(pictures, ())
    lost = {}
    for name in nodes:
        node = chosen[name]
        cosines = (switched.embed(pictures, (node.input[0], node.output[0])) * expected).sum(axis=1)
        lost[name] = (1 - float(cosines.mean())) / work[name]
    return sorted(nodes, key=lambda name: -lost[name])


class _Switched:
    """A network in which each value can be rounded to 8 bits or not, by an input of its own; opened once."""

    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, Range]) -> None:
        model = copy_model(model)
        graph = model.graph
        self._feed = graph.input[0].name
        outputs = {output.name for output in graph.output}
        inserted = {name: _rounding(graph, name, one) for name, one in ranges.items() if name not in outputs}
        ordered = [inserted[self._feed]] if self._feed in inserted else []
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name in inserted:
                    node.input[index] = f"{name}/rounded"
            ordered.append(node)
            ordered += [inserted[name] for name in node.output if name in inserted]
        self._switches = {name: f"{name}/switch" for name in inserted}
        graph.input.extend(helper.make_tensor_value_info(s, TensorProto.BOOL, []) for s in self._switches.values())
        replace_items(graph.node, ordered)
        del graph.value_info[:]
        options = ort.SessionOptions()
        # The last ones would lay out anew what is on both sides of every switch.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        self._session = quiet_session(model, options)

    def embed(self, pictures: FloatArray, rounded: Sequence[str]) -> FloatArray:
        """(n, d) rows of length 1, with the values ``rounded`` in 8 bits."""
        switches = {s: np.array(name in rounded) for name, s in self._switches.items()}
        (output,) = self._session.run(None, {self._feed: pictures, **switches})
        rows = output.reshape(len(output), -1)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def _rounding(graph: onnx.GraphProto, name: str, span: Range) -> onnx.NodeProto:
    """The value, rounded if its switch says so. What is not switched on is not computed."""
    scale = max((span.high - span.low) / (LEVELS - 1), 1e-12)
    zero = int(np.clip(round(-span.low / scale), 0, LEVELS - 1))
    part = {key: f"{name}/{key}" for key in ("scale", "zero", "levels", "back", "same", "switch", "rounded")}
    graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), part["scale"]))
    graph.initializer.append(numpy_helper.from_array(np.array(zero, np.uint8), part["zero"]))
    rounding = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", [name, part["scale"], part["zero"]], [part["levels"]]),
            helper.make_node("DequantizeLinear", [part["levels"], part["scale"], part["zero"]], [part["back"]]),
        ],
        "rounding",
        [],
        [helper.make_tensor_value_info(part["back"], TensorProto.FLOAT, None)],
    )
    keeping = helper.make_graph(
        [helper.make_node("Identity", [name], [part["same"]])],
        "keeping",
        [],
        [helper.make_tensor_value_info(part["same"], TensorProto.FLOAT, None)],
    )
    return helper.make_node("If", [part["switch"]], [part["rounded"]], then_branch=rounding, else_branch=keeping)


def _work(model: onnx.ModelProto) -> dict[str, int]:
    """What each convolution and product costs in float for one picture, in multiplications, as far as shapes are known.

    Int8 and float kernels lay pictures out differently, so what goes in and comes out is laid out anew.
    """
    graph = model.graph
    infos = (*graph.value_info, *graph.input, *graph.output)
    shapes = {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in infos}
    weights = {tensor.name: prod(tensor.dims) for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if len(node.input) > 1 and node.input[1] in weights:
            places = prod(max(side, 1) for side in shapes.get(node.output[0], [])[2:])
            moved = sum(prod(shapes.get(name, [])[1:]) for name in (node.input[0], node.output[0]))
            found[node.name] = weights[node.input[1]] * places + LAYING_OUT * moved
    return found
