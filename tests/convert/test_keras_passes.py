"""Each pass for Keras' graphs on a graph small enough to see through: fewer nodes, the same numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from convert.keras_passes import (
    affine_to_batchnorm,
    fold_pad_into_conv,
    fold_transpose_before_gemm,
    free_batch,
    fuse_prelu,
    matmul_to_gemm,
    reshape_to_flatten,
)

RANDOM = np.random.default_rng(5)
Array = npt.NDArray[Any]


def network(nodes: list[onnx.NodeProto], shape: list[Any], **weights: Array) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, x: Array) -> Array:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {"x": x})[0]
    return result


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def prelu_nodes(first: str = "plus", second: str = "minus") -> list[onnx.NodeProto]:
    return [
        helper.make_node("Relu", ["x"], ["plus"]),
        helper.make_node("Neg", ["x"], ["negative"]),
        helper.make_node("Relu", ["negative"], ["rectified"]),
        helper.make_node("Mul", ["rectified", "slope"], ["minus"]),
        helper.make_node("Add", [first, second], ["y"]),
    ]


@pytest.mark.parametrize("order", [("plus", "minus"), ("minus", "plus")])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1)])
def test_keras_prelu_becomes_one_node(order: tuple[str, str], shape: tuple[int, ...]) -> None:
    slope = RANDOM.normal(size=shape).astype(np.float32)
    model = network(prelu_nodes(*order), [None, 4, 3, 3], slope=slope)
    fused = fuse_prelu(model)
    x = RANDOM.normal(size=(2, 4, 3, 3)).astype(np.float32)
    assert "PRelu" in kinds(fused)
    assert "Add" not in kinds(fused)
    np.testing.assert_allclose(run(fused, x), run(model, x), atol=1e-6)


def test_a_sum_that_only_looks_like_prelu_stays() -> None:
    nodes = prelu_nodes()
    nodes[1] = helper.make_node("Neg", ["other"], ["negative"])
    nodes.insert(0, helper.make_node("Abs", ["x"], ["other"]))
    model = network(nodes, [None, 4, 3, 3], slope=np.ones((4, 1, 1), np.float32))
    assert "PRelu" not in kinds(fuse_prelu(model))


def test_a_rectifier_that_somebody_else_reads_too_stays() -> None:
    nodes = [*prelu_nodes()[:4], helper.make_node("Add", ["plus", "minus"], ["sum"])]
    nodes.append(helper.make_node("Mul", ["sum", "plus"], ["y"]))
    model = network(nodes, [None, 4, 3, 3], slope=np.ones((4, 1, 1), np.float32))
    assert "PRelu" not in kinds(fuse_prelu(model))


def dense(*after: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["turned", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["product"]),
        *after,
    ]


WEIGHTS = {
    "target": np.array([-1, 24], np.int64),
    "matrix": RANDOM.normal(size=(24, 5)).astype(np.float32),
    "factor": RANDOM.normal(size=5).astype(np.float32),
    "shift": RANDOM.normal(size=(1, 5)).astype(np.float32),
}


def test_dense_layer_and_norm_become_one_gemm_without_a_transpose() -> None:
    nodes = dense(
        helper.make_node("Mul", ["product", "factor"], ["scaled"]), helper.make_node("Add", ["shift", "scaled"], ["y"])
    )
    model = network(nodes, [None, 4, 2, 3], **WEIGHTS)
    x = RANDOM.normal(size=(3, 4, 2, 3)).astype(np.float32)
    gemm = matmul_to_gemm(model)
    assert kinds(gemm) == {"Transpose": 1, "Reshape": 1, "Gemm": 1}
    flat = reshape_to_flatten(gemm)
    assert kinds(flat) == {"Transpose": 1, "Flatten": 1, "Gemm": 1}
    direct = fold_transpose_before_gemm(flat)
    assert next(node for node in direct.graph.node if node.op_type == "Flatten").input[0] == "x"
    for changed in (gemm, flat, direct):
        np.testing.assert_allclose(run(changed, x), run(model, x), atol=1e-5)


def test_a_product_that_is_an_output_or_is_read_twice_keeps_its_numbers() -> None:
    nodes = dense(helper.make_node("Mul", ["product", "factor"], ["scaled"]))
    nodes.append(helper.make_node("Add", ["scaled", "product"], ["y"]))
    model = network(nodes, [None, 4, 2, 3], **WEIGHTS)
    x = RANDOM.normal(size=(2, 4, 2, 3)).astype(np.float32)
    changed = matmul_to_gemm(model)
    assert kinds(changed)["Mul"] == 1
    np.testing.assert_allclose(run(changed, x), run(model, x), atol=1e-5)


@pytest.mark.parametrize(
    ("edges", "fill", "folds"),
    [
        ((0, 0, 1, 2, 0, 0, 0, 1), 0.0, True),
        ((0, 0, 1, 1, 0, 0, 1, 1), 1.0, False),
        ((0, 1, 1, 1, 0, 0, 1, 1), 0.0, False),
    ],
)
def test_zeros_around_the_picture_become_part_of_the_convolution(
    edges: tuple[int, ...], fill: float, folds: bool
) -> None:
    nodes = [
        helper.make_node("Pad", ["x", "edges", "fill"], ["padded"]),
        helper.make_node("Conv", ["padded", "weight"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 0, 1]),
    ]
    channels = 2 + edges[1]
    weights = {
        "edges": np.array(edges, np.int64),
        "fill": np.float32(fill),
        "weight": RANDOM.normal(size=(3, channels, 3, 3)).astype(np.float32),
    }
    model = network(nodes, [None, 2, 7, 6], **weights)
    folded = fold_pad_into_conv(model)
    x = RANDOM.normal(size=(2, 2, 7, 6)).astype(np.float32)
    assert (folded.graph.node[-1].input[0] == "x") is folds
    np.testing.assert_allclose(run(folded, x), run(model, x), atol=1e-5)


def test_a_reshape_to_a_batch_of_one_takes_any_batch() -> None:
    nodes = [helper.make_node("Reshape", ["x", "target"], ["y"])]
    model = free_batch(network(nodes, [None, 4, 2, 3], target=np.array([1, 24], np.int64)))
    assert run(model, np.zeros((7, 4, 2, 3), np.float32)).shape == (7, 24)


def test_a_reshape_that_joins_pictures_is_no_flatten() -> None:
    nodes = [helper.make_node("Reshape", ["x", "target"], ["y"])]
    model = network(nodes, [None, 4, 2, 3], target=np.array([-1, 2, 12], np.int64))
    assert kinds(reshape_to_flatten(model)) == {"Reshape": 1}


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1)])
def test_a_factor_and_a_shift_for_each_channel_become_a_norm_again(shape: tuple[int, ...]) -> None:
    nodes = [helper.make_node("Mul", ["x", "factor"], ["m"]), helper.make_node("Add", ["shift", "m"], ["y"])]
    weights = {name: RANDOM.normal(size=shape).astype(np.float32) for name in ("factor", "shift")}
    model = network(nodes, [None, 4, 3, 3], **weights)
    normed = affine_to_batchnorm(model)
    x = RANDOM.normal(size=(2, 4, 3, 3)).astype(np.float32)
    assert kinds(normed) == {"BatchNormalization": 1}
    np.testing.assert_allclose(run(normed, x), run(model, x), rtol=1e-5, atol=1e-6)


def test_a_factor_that_somebody_else_reads_or_that_is_for_all_channels_stays() -> None:
    factor, shift = RANDOM.normal(size=(4, 1, 1)).astype(np.float32), np.ones((4, 1, 1), np.float32)
    nodes = [helper.make_node("Mul", ["x", "factor"], ["m"]), helper.make_node("Add", ["m", "shift"], ["a"])]
    shared = network([*nodes, helper.make_node("Mul", ["a", "m"], ["y"])], [None, 4, 3, 3], factor=factor, shift=shift)
    assert "BatchNormalization" not in kinds(affine_to_batchnorm(shared))
    nodes[1] = helper.make_node("Add", ["m", "shift"], ["y"])
    single = network(nodes, [None, 4, 3, 3], factor=factor[:1], shift=shift)
    assert "BatchNormalization" not in kinds(affine_to_batchnorm(single))
