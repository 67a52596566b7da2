"""What the machine can do at most: the yardstick beside what was reached."""

from __future__ import annotations

import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, shape_inference


def sgemm_peak(size: int = 2048, repeat: int = 5) -> float:
    """GFLOP/s of numpy's float32 matrix product with all cores: the best of ``repeat``."""
    a, b = (np.random.default_rng(seed).random((size, size), np.float32) for seed in (0, 1))
    out = a @ b
    return 2 * size**3 / min(_seconds(lambda: np.matmul(a, b, out=out)) for _ in range(repeat)) / 1e9


def igemm_peak(size: int = 2048, repeat: int = 5) -> float:
    """10^9 operations a second of ONNX Runtime's product of unsigned and signed bytes with all cores: the best of
    ``repeat``.

    A processor with VNNI does four times as many as in float32, one without twice as many.
    """
    activations, weights = (np.random.default_rng(seed).integers(0, 64, (size, size)) for seed in (0, 1))
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["activations", "weights"], ["product"])],
        "product",
        [helper.make_tensor_value_info("activations", TensorProto.UINT8, [size, size])],
        [helper.make_tensor_value_info("product", TensorProto.INT32, [size, size])],
        [helper.make_tensor("weights", TensorProto.INT8, [size, size], weights.astype(np.int8).tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {"activations": activations.astype(np.uint8)}
    return 2 * size**3 / min(_seconds(lambda: session.run(None, inputs)) for _ in range(repeat + 1)) / 1e9


def memory_bandwidth(megabytes: int = 256, repeat: int = 5) -> float:
    """GB/s of one core that copies an array which no cache holds, reads and writes counted: the best of ``repeat``."""
    source = np.ones(megabytes * 2**17)
    target = np.empty_like(source)
    return 2 * source.nbytes / min(_seconds(lambda: np.copyto(target, source)) for _ in range(repeat + 1)) / 1e9


def gflop(model: onnx.ModelProto) -> float:
    """Multiplications and additions of one picture in convolutions and matrix products, in 10^9."""
    inferred = shape_inference.infer_shapes(model)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*inferred.graph.value_info, *inferred.graph.output]
    }
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        weight = weights.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type == "Conv" and weight is not None:
            pixels = int(np.prod(shapes[node.output[0]][2:]))
            total += 2 * pixels * int(np.prod(weight))
        elif node.op_type in {"Gemm", "MatMul"} and weight is not None:
            total += 2 * int(np.prod(weight))
    return total / 1e9


def _seconds(call: object) -> float:
    assert callable(call)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
