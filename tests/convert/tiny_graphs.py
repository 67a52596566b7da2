"""Tiny ONNX graphs for the tests of passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(7)


def network(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, Array],
    *,
    shape: Sequence[int | str] = (1, 3, 6, 6),
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    stale: Sequence[str] = (),
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in stale]
    graph = helper.make_graph(
        list(nodes),
        "test",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run(model: onnx.ModelProto, x: Array, **others: Array) -> list[Array]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, {"x": x, **others})
    return outputs


def floats(*shape: int) -> Array:
    return RANDOM.normal(size=shape).astype(np.float32)


def batchnorm(prefix: str, channels: int) -> dict[str, Array]:
    values = {"gamma": floats(channels), "beta": floats(channels), "mean": floats(channels)}
    values["var"] = np.abs(floats(channels)) + 0.1
    return {f"{prefix}_{key}": value for key, value in values.items()}


def norm(source: str, prefix: str, output: str, epsilon: float = 1e-3) -> onnx.NodeProto:
    parts = [f"{prefix}_{key}" for key in ("gamma", "beta", "mean", "var")]
    return helper.make_node("BatchNormalization", [source, *parts], [output], epsilon=epsilon)


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)
