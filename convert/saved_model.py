"""A SavedModel folder of TensorFlow as a source of the export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from convert.errors import WeightsError
from convert.framework import INPUT, Array, Layer, first_line, from_function

_TOUCH_FILES = frozenset({"ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc"})
_PLUMBING = frozenset({"Placeholder", "Const", "Identity", "NoOp", "Reshape", "Transpose"})


class SavedModelSource:
    """A SavedModel with one picture in and one embedding out."""

    exact = True
    what = "a SavedModel"

    def __init__(self, path: Path) -> None:
        """Raises WeightsError when it cannot be loaded, has another signature, or would touch files as it runs."""
        import tensorflow as tf  # noqa: PLC0415

        _require_harmless(path)
        try:
            self._loaded = tf.saved_model.load(str(path))
            self._call = self._loaded.signatures["serving_default"]
        except Exception as error:
            raise WeightsError(f"{path} cannot be loaded as a SavedModel: {first_line(error)}.") from error
        inputs = self._call.structured_input_signature[1]
        if len(inputs) != 1 or len(self._call.structured_outputs) != 1:
            raise WeightsError(
                f"{path} has {len(inputs)} inputs and {len(self._call.structured_outputs)} outputs, not one."
            )
        (self._name,) = inputs
        self._shape = inputs[self._name].shape

    def run(self, pictures: Array) -> Array:
        """See :class:`Source`."""
        (output,) = self._call(**{self._name: pictures}).values()
        return np.asarray(output, np.float32)

    def layers(self, pictures: Array) -> Iterator[Layer]:
        """See :class:`Source`. A layer is an operation of TensorFlow here."""
        import tensorflow as tf  # noqa: PLC0415
        from tensorflow.python.framework.convert_to_constants import (  # noqa: PLC0415
            convert_variables_to_constants_v2,
        )

        frozen = convert_variables_to_constants_v2(self._call)
        operations = [operation for operation in frozen.graph.get_operations() if _is_layer(operation)]
        results = frozen.prune(frozen.inputs, [one.outputs[0] for one in operations])(tf.constant(pictures))
        for operation, output in zip(operations, results, strict=True):
            inputs = [tensor.op.name for tensor in operation.inputs]
            yield Layer(operation.name, inputs, np.asarray(output, np.float32))

    def to_onnx(self) -> onnx.ModelProto:
        """See :class:`Source`."""
        import tensorflow as tf  # noqa: PLC0415

        graph = tf.function(lambda pictures: next(iter(self._call(**{self._name: pictures}).values())))
        signature = [tf.TensorSpec((None, *self._shape[1:]), tf.float32, name=INPUT)]
        return from_function(graph, signature)


def _require_harmless(path: Path) -> None:
    """A SavedModel is a program of TensorFlow; one that reads or writes files is no network."""
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415

    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((path / "saved_model.pb").read_bytes())
    except Exception as error:
        raise WeightsError(f"{path} is a damaged SavedModel: {first_line(error)}. Get it again.") from error
    for graph in model.meta_graphs:
        nodes = [*graph.graph_def.node, *(node for f in graph.graph_def.library.function for node in f.node_def)]
        found = sorted({node.op for node in nodes} & _TOUCH_FILES)
        if found:
            raise WeightsError(f"{path} is refused: running it would touch files of this machine ({', '.join(found)}).")


def _is_layer(operation: Any) -> bool:
    import tensorflow as tf  # noqa: PLC0415

    outputs = operation.outputs
    return (
        operation.type not in _PLUMBING
        and len(outputs) > 0
        and outputs[0].dtype == tf.float32
        and outputs[0].shape.rank in (2, 4)
        and outputs[0].shape[0] is None
    )
