"""A float network with int8 convolutions and products: static QDQ, activations U8, weights S8 per channel."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, version_converter
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData

from convert.equalise import equalise
from convert.errors import PrecisionError
from convert.layout import batchnorm_as_affine, name_nodes, prelu_as_max
from convert.passes import apply, copy_model, prune
from convert.ranges import Range
from runtime.byte_pairs import PAIR_MOST, largest_pairs, output_axis
from runtime.faces import FloatArray

OPERATORS = ("Conv", "Gemm", "MatMul")
"""What is quantised. Sums of residual blocks are not: that is no faster, and every block would add an error."""

OPSET = 17
MIN_OPSET = 13
"""Scales per channel came with opset 13."""

_WEIGHT_MOST = 127
_STEP = 1.002

_OPTIONS = {
    # A product's result is an embedding, or nearly: ONNX Runtime's kernel gives it in float at no cost.
    "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
}


def prepare(model: onnx.ModelProto, pictures: FloatArray) -> onnx.ModelProto:
    """The same network, laid out for int8 kernels, its channels equalised, its nodes named, its shapes inferred.

    Args:
        model: a float network.
        pictures: (n, ...) float32, network inputs, by which channels are equalised.

    Raises:
        PrecisionError: it cannot be brought to an opset that can express int8.
    """
    try:
        if _opset(model) < MIN_OPSET:
            model = version_converter.convert_version(model, OPSET)
        equal = equalise(batchnorm_as_affine(model), pictures)
        return onnx.shape_inference.infer_shapes(apply(equal, (prelu_as_max, name_nodes, prune)))
    except (RuntimeError, ValueError, TypeError, onnx.onnx_cpp2py_export.shape_inference.InferenceError) as error:
        raise PrecisionError(f"The network cannot be laid out for int8: {str(error).splitlines()[0][:300]}.") from error


def quantisable(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that can be quantised, in the order in which they run: those with weights of their own.

    Raises:
        PrecisionError: there is none.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    found = [node.name for node in model.graph.node if node.op_type in OPERATORS and node.input[1] in weights]
    if not found:
        raise PrecisionError("The network has no convolution and no product with weights that could be quantised.")
    return found


def values_to_range(model: onnx.ModelProto, nodes: Collection[str]) -> list[str]:
    """Names of the values that need a range when ``nodes`` are quantised: what goes in and what comes out."""
    chosen = [node for node in model.graph.node if node.name in nodes]
    return list(dict.fromkeys(name for node in chosen for name in (node.input[0], node.output[0])))


def quantise(model: onnx.ModelProto, ranges: Mapping[str, Range], nodes: Sequence[str]) -> onnx.ModelProto:
    """The network with ``nodes`` in int8, and the same numbers from it on every processor.

    Weights use as many of their 8 bits as the fastest kernels of a processor without VNNI multiply exactly
    (:mod:`runtime.byte_pairs`).

    Args:
        model: as :func:`prepare` gives it.
        ranges: of the values that :func:`values_to_range` names.
        nodes: which nodes; all others stay in float.

    Raises:
        PrecisionError: ONNX Runtime's quantiser cannot treat the network.
    """
    copy = copy_model(model)
    data = {
        name: TensorData(lowest=np.array(one.low, np.float32), highest=np.array(one.high, np.float32))
        for name, one in ranges.items()
    }
    spans = TensorsData(CalibrationMethod.MinMax, data)
    try:
        options = {**_OPTIONS, "TensorQuantOverrides": _weight_scales(model, nodes)}
        quantiser = QDQQuantizer(
            copy, True, False, QuantType.QInt8, QuantType.QUInt8, spans, list(nodes), [], list(OPERATORS), options
        )
        quantiser.quantize_model()
        quantiser.model.topological_sort()
        quantised: onnx.ModelProto = quantiser.model.model
        del quantised.graph.value_info[:]
        onnx.checker.check_model(quantised, full_check=True)
    except Exception as error:
        raise PrecisionError(f"The network cannot be quantised: {str(error).splitlines()[0][:300]}.") from error
    return quantised


def _weight_scales(model: onnx.ModelProto, nodes: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """For each weight of ``nodes`` what ONNX Runtime's quantiser shall divide each output's weights by."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    given: dict[str, list[dict[str, Any]]] = {}
    for node in model.graph.node:
        if node.name not in nodes:
            continue
        weights = numpy_helper.to_array(constants[node.input[1]]).astype(np.float32)
        kind = {"quant_type": QuantType.QInt8, "axis": output_axis(weights, node), "zero_point": 0}
        given[node.input[1]] = [{**kind, "scale": scale} for scale in _finest_scales(weights, node)]
    return given


def _finest_scales(weights: FloatArray, node: onnx.NodeProto) -> FloatArray:
    """(outputs,): the finest scale of each that keeps its weights, and sums of two neighbours, within their bounds."""
    axis = output_axis(weights, node)
    rest = tuple(other for other in range(weights.ndim) if other != axis)
    scales: FloatArray = np.maximum(
        np.abs(weights).max(axis=rest) / _WEIGHT_MOST, largest_pairs(weights, node) / PAIR_MOST
    )
    scales[scales == 0] = 1  # Any does where all weights are zero.
    shape = [-1 if other == axis else 1 for other in range(weights.ndim)]
    # Rounding may lift a sum over its bound once more.
    while (high := largest_pairs(np.rint(weights / scales.reshape(shape)), node) > PAIR_MOST).any():
        scales[high] *= _STEP
    return scales


def _opset(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
