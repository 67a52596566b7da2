"""Every pass keeps what a network computes, and does what its name says."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_graphs import RANDOM, batchnorm, floats, network, norm, operators, run

from convert import batchnorm_passes, passes


def test_block_quantised_weights_become_plain_weights_with_the_values_that_onnx_runtime_sees() -> None:
    stored = RANDOM.integers(-128, 128, (4, 27)).astype(np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["flat"], axis=1, block_size=9),
        helper.make_node("Reshape", ["flat", "shape"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    weights = {
        "q": stored,
        "scale": np.abs(floats(4, 3)) / 100,
        "zero": RANDOM.integers(-5, 5, (4, 3)).astype(np.int8),
        "shape": np.array([4, 3, 3, 3]),
    }
    model = network(nodes, weights, opset=21)
    folded = passes.fold_constants(model)
    x = floats(1, 3, 6, 6)
    assert operators(folded) == {"Conv": 1}
    np.testing.assert_allclose(run(folded, x)[0], run(model, x)[0], rtol=1e-5, atol=1e-6)


def test_scalars_stay_scalars_when_they_are_folded() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32(2)))
    folded = passes.fold_constants(network([constant, helper.make_node("Mul", ["x", "c"], ["y"])], {}))
    assert [list(tensor.dims) for tensor in folded.graph.initializer] == [[]]


def test_nodes_that_depend_on_the_input_or_on_chance_are_not_folded() -> None:
    nodes = [
        helper.make_node("RandomNormal", [], ["r"], shape=[1]),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    assert operators(passes.fold_constants(network(nodes, {}))) == {"RandomNormal": 1, "Add": 1}


def test_identity_and_dropout_vanish_but_not_at_an_output_and_not_with_a_mask_in_use() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Dropout", ["a"], ["b"]),
        helper.make_node("Identity", ["b"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Dropout", ["d"], ["e", "mask"]),
        helper.make_node("Where", ["mask", "e", "x"], ["f"]),
        helper.make_node("Identity", ["f"], ["y"]),
    ]
    model = network(nodes, {})
    lean = passes.drop_passthrough(model)
    x = floats(1, 3, 6, 6)
    assert operators(lean) == {"Relu": 1, "Dropout": 1, "Where": 1, "Identity": 1}
    np.testing.assert_array_equal(run(lean, x)[0], run(model, x)[0])


def test_prune_removes_stale_inputs_unused_weights_and_dead_nodes() -> None:
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"]), helper.make_node("Relu", ["x"], ["dead"])]
    model = network(nodes, {"w": floats(1), "unused": floats(1)}, stale=("w", "stale"))
    lean = passes.prune(model)
    assert [value.name for value in lean.graph.input] == ["x"]
    assert [tensor.name for tensor in lean.graph.initializer] == ["w"]
    assert operators(lean) == {"Mul": 1}
    x = floats(1, 3, 6, 6)
    np.testing.assert_array_equal(run(lean, x)[0], run(model, x, stale=floats(1))[0])


def test_what_only_a_subgraph_reads_is_kept() -> None:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(operator, ["a", "w"], [name])], name, [], [out])

    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("If", ["condition"], ["y"], then_branch=branch("t", "Add"), else_branch=branch("e", "Mul")),
    ]
    model = network(nodes, {"w": floats(1), "condition": np.array(True)})
    lean = passes.apply(model, [passes.fold_constants, passes.drop_passthrough, passes.prune])
    x = floats(1, 3, 6, 6)
    np.testing.assert_array_equal(run(lean, x)[0], run(model, x)[0])


def test_a_named_batch_takes_any_length() -> None:
    model = network([helper.make_node("Relu", ["x"], ["y"])], {})
    assert run(passes.name_batch(model), floats(5, 3, 6, 6))[0].shape == (5, 3, 6, 6)


def test_a_node_that_the_reference_does_not_know_in_its_opset_stays() -> None:
    nodes = [helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]), helper.make_node("Mul", ["x", "w"], ["y"])]
    weights = {"q": np.array([3], np.int8), "scale": np.array(0.5, np.float32)}
    model = network(nodes, weights, shape=(1, 1), opset=17)
    folded = passes.fold_constants(model)
    one = np.ones((1, 1), np.float32)
    np.testing.assert_array_equal(run(folded, one)[0], run(model, one)[0])


def test_opset_is_lowered_and_never_raised() -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    new = network([node], {"shape": np.array([1, -1])}, opset=21)
    lowered = passes.lower_opset(new, 17, 8)
    assert (lowered.opset_import[0].version, lowered.ir_version) == (17, 8)
    onnx.checker.check_model(lowered, full_check=True)
    old = network([node], {"shape": np.array([1, -1])}, opset=11)
    assert passes.lower_opset(old, 17, 8) == old


def test_one_scale_for_a_vector_is_no_block() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=0, block_size=3),
        helper.make_node("Mul", ["x", "w"], ["y"]),
    ]
    weights = {"q": np.array([1, 2, 3], np.int8), "scale": np.array([0.5], np.float32), "zero": np.zeros(1, np.int8)}
    model = network(nodes, weights, shape=(1, 3), opset=21)
    ones = np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(run(passes.drop_single_blocks(model), ones)[0], [[0.5, 1, 1.5]])


def test_passes_leave_the_model_that_they_are_given_alone() -> None:
    nodes = [
        helper.make_node("Identity", ["w"], ["v"]),
        helper.make_node("Conv", ["x", "v"], ["c"]),
        norm("c", "n", "y"),
    ]
    model = network(nodes, {"w": floats(6, 3, 3, 3), **batchnorm("n", 6)}, opset=21)
    before = model.SerializeToString(deterministic=True)
    every = [
        passes.fold_constants,
        passes.drop_passthrough,
        passes.prune,
        batchnorm_passes.fold_batchnorm_after_conv,
        batchnorm_passes.fold_batchnorm_before_conv,
        batchnorm_passes.fold_batchnorm_before_gemm,
        batchnorm_passes.fold_batchnorm_after_gemm,
        passes.name_batch,
        passes.drop_single_blocks,
    ]
    for one in every:
        one(model)
    passes.lower_opset(model, 17, 8)
    assert model.SerializeToString(deterministic=True) == before
