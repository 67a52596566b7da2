"""Which layers to keep in float."""

from __future__ import annotations

import onnx
from onnx import helper
from tiny_graphs import floats, network

from convert.layout import name_nodes
from convert.ranges import METHODS, Range, histograms
from convert.sensitivity import delicate_first


def chain() -> onnx.ModelProto:
    """Three convolutions of one size and a large one behind them."""
    weights = {f"w{number}": floats(3, 3, 1, 1) for number in range(3)} | {"w3": floats(64, 3, 3, 3)}
    nodes = [helper.make_node("Conv", ["x" if n == 0 else f"v{n - 1}", f"w{n}"], [f"v{n}"]) for n in range(3)]
    nodes.append(helper.make_node("Conv", ["v2", "w3"], ["y"], pads=[1, 1, 1, 1]))
    return onnx.shape_inference.infer_shapes(name_nodes(network(nodes, weights, shape=("n", 3, 6, 6))))


def test_the_layer_that_int8_harms_most_for_its_work_comes_first() -> None:
    model, pictures = chain(), floats(5, 3, 6, 6)
    names = [node.name for node in model.graph.node]
    values = ["x", "v0", "v1", "v2", "y"]
    ranges = {name: METHODS["min-max"](one) for name, one in histograms(model, values, pictures).items()}
    ranges["v0"] = Range(-1e3, 1e3)
    found = delicate_first(model, ranges, names, pictures)
    assert sorted(found) == sorted(names)
    assert set(found[:2]) == set(names[:2])
    assert found[-1] == names[3]
