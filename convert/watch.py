"""The numbers inside a network as it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from convert.passes import copy_model
from runtime.faces import FloatArray


def watched(model: onnx.ModelProto, names: Sequence[str], pictures: FloatArray) -> Iterator[dict[str, FloatArray]]:
    """The values ``names`` of a network with one input, for each of ``pictures``, one after the other.

    Args:
        pictures: (n, ...) float32, network inputs.
    """
    opened = copy_model(model)
    given = {value.name for value in (*opened.graph.input, *opened.graph.output)}
    shown = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in given]
    opened.graph.output.extend(shown)
    session = quiet_session(opened)
    feed = session.get_inputs()[0].name
    asked = [name for name in names if name != feed]
    for picture in pictures:
        values = dict(zip(asked, session.run(asked, {feed: picture[None]}), strict=True))
        yield values | {name: picture[None] for name in names if name == feed}


def quiet_session(model: onnx.ModelProto, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    """A network opened on the CPU as it is, without warnings."""
    options = options or ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
