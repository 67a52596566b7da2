"""A float network with fp16 weights and arithmetic, for GPUs; what goes in and comes out stays float32."""

from __future__ import annotations

import onnx

from convert.errors import PrecisionError
from convert.layout import batchnorm_as_affine, name_nodes
from convert.passes import apply, prune


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network in fp16.

    A BatchNormalization becomes a factor and a shift first: its variances may be too small for fp16.

    Raises:
        PrecisionError: ONNX Runtime's converter cannot treat the network.
    """
    # Imported here: the package is not typed and puts itself on the import path.
    from onnxruntime.quantization.onnx_model import ONNXModel  # noqa: PLC0415
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

    try:
        halved: onnx.ModelProto = convert_float_to_float16(
            apply(model, (batchnorm_as_affine, name_nodes, prune)), keep_io_types=True
        )
        del halved.graph.value_info[:]
        # It appends the casts of inputs at the end.
        ordered = ONNXModel(halved)
        ordered.topological_sort()
        halved = ordered.model
        onnx.checker.check_model(halved, full_check=True)
    except Exception as error:
        raise PrecisionError(f"The network cannot be had in fp16: {str(error).splitlines()[0][:300]}.") from error
    return halved
