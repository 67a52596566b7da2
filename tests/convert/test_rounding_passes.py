"""An int8 network is served in float32: what rounded it as it ran is taken out, its weights stay what they were."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper
from tiny_graphs import floats, network, operators, run

from convert.passes import apply, prune
from convert.rounding_passes import drop_dynamic_rounding, float_ends


def test_numbers_that_were_rounded_as_the_network_ran_are_no_longer() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["rounded"]),
        helper.make_node("Relu", ["rounded"], ["y"]),
    ]
    model = network(nodes, {})
    lean = apply(model, [drop_dynamic_rounding, prune])
    x = floats(1, 3, 6, 6)
    assert operators(lean) == {"Relu": 1}
    np.testing.assert_array_equal(run(lean, x)[0], np.maximum(x, 0))
    np.testing.assert_allclose(run(lean, x)[0], run(model, x)[0], atol=0.05)


def int8_ends(*, turned: bool) -> list:
    turn = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1])] if turned else []
    return [
        *turn,
        helper.make_node("Cast", ["t" if turned else "x"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["c", "zero"], ["s"]),
        helper.make_node("Mul", ["s", "scale"], ["real"]),
        helper.make_node("Abs", ["real"], ["result"]),
        helper.make_node("QuantizeLinear", ["result", "scale", "whole"], ["y"]),
    ]


def test_int8_in_and_out_become_float() -> None:
    weights = {"zero": np.float32(-3), "scale": np.float32(0.25), "whole": np.int8(-3)}
    for turned in (False, True):
        model = network(int8_ends(turned=turned), {name: np.array(value) for name, value in weights.items()})
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = TensorProto.INT8
        lean = apply(model, [float_ends, prune])
        assert operators(lean) == ({"Transpose": 1, "Abs": 1} if turned else {"Abs": 1})
        x = floats(1, 3, 6, 6)
        np.testing.assert_array_equal(run(lean, x)[0], np.abs(x.transpose(0, 2, 3, 1) if turned else x))


def test_a_float_network_is_left_alone() -> None:
    model = network([helper.make_node("Relu", ["x"], ["y"])], {})
    assert float_ends(model) == model
    assert drop_dynamic_rounding(model) == model
