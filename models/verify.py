"""Whether a model file is sound: its bytes, its card, its inputs and outputs, its parity figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.card import ModelCard, load_card
from models.errors import ModelError
from models.store import Model, file_sha256, is_intact, recorded_sha256

MIN_COSINE = 0.97
"""Below this not even a quantised network counts as the same (fp32 repairs are held to 0.99999 when written)."""

DETECTOR_OUTPUTS: Mapping[str, tuple[int, ...]] = {
    "retinaface-mobilenet": (3,),
    "retinaface-resnet50": (9,),
    "yunet": (12,),
    "scrfd": (6, 9, 10, 15),
    "insightface-retinaface": (6, 9, 10, 15),
}
"""How many outputs a family of detectors may have (with and without landmarks, with three and with five strides)."""

Values = Sequence[dict[str, Any]]


def verify_model(path: Path) -> list[str]:
    """What is wrong with a model file, one sentence each; empty when it is sound."""
    if not path.is_file():
        return [f"{path} does not exist. Get it with `python -m convert fetch {path.stem}`."]
    problems = []
    if not is_intact(path):
        problems.append(
            f"Its bytes are not those that were written, or {path.name}.sha256 is missing "
            f"(recorded sha256 {recorded_sha256(path)}, actual {file_sha256(path)}). "
            f"Get it again with `python -m convert fetch --force {path.stem}`, or adopt it again."
        )
    try:
        card = load_card(path)
        inputs, outputs = signature(path)
    except ModelError as error:
        return [*problems, str(error)]
    problems += fit_problems(card, inputs, outputs)
    # A quantised network is judged by its mean, as it was when it was written.
    cosine = card.parity.get("cosine_mean", card.parity.get("cosine_min"))
    if cosine is not None and cosine < MIN_COSINE:
        problems.append(f"It differs from its source: cosine {cosine:.7f}, {MIN_COSINE} is needed.")
    return problems


def verify_found(model: Model) -> list[str]:
    """What is wrong with a model that a setting names, one sentence each.

    Of a built-in one nothing is; for one of a pack, of which no sha256 is recorded, its form is looked at.
    """
    if model.path is None:
        return []
    return fit_problems(model.card, *signature(model.path)) if model.pack else verify_model(model.path)


def fit_problems(card: ModelCard, inputs: Values, outputs: Values) -> list[str]:
    """Where a network's inputs and outputs, as :func:`signature` gives them, do not fit its card."""
    if len(inputs) != 1:
        return [f"It has {len(inputs)} inputs; one is expected."]
    shape = inputs[0]["shape"]
    if len(shape) != 4 or inputs[0]["type"] != "tensor(float)":
        return [f"Its input is {inputs[0]['type']} {shape}; a float tensor of 4 dimensions is expected."]
    problems = []
    channels, (height, width) = (shape[1], shape[2:]) if card.layout == "NCHW" else (shape[3], shape[1:3])
    if channels != 3:
        problems.append(f"Its input {shape} has no 3 channels where {card.layout} has them.")
    for side, declared, actual in (("width", card.input_size[0], width), ("height", card.input_size[1], height)):
        if isinstance(actual, int) and actual != declared:
            problems.append(f"Its input {side} is {actual}, its card says {declared or 'any'}.")
    if card.task == "embedding":
        if isinstance(shape[0], int):
            problems.append(f"Its batch is fixed at {shape[0]}; any length is expected.")
        if len(outputs) != 1 or outputs[0]["shape"][-1:] != [card.dimension]:
            problems.append(
                f"Its outputs are {[o['shape'] for o in outputs]}; one of (n, {card.dimension}) is expected."
            )
    elif len(outputs) not in DETECTOR_OUTPUTS.get(card.family, (len(outputs),)):
        counts = " or ".join(str(count) for count in DETECTOR_OUTPUTS[card.family])
        problems.append(f"It has {len(outputs)} outputs; {card.family} has {counts}.")
    return problems


def signature(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs of a model: name, type and shape (numbers, or names of dimensions of any length).

    Raises:
        ModelError: ONNX Runtime cannot open the file.
    """
    # Imported here: `list` needs no ONNX Runtime, and this takes a good part of a second.
    import onnxruntime as ort  # noqa: PLC0415

    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot open {path}: {str(error).splitlines()[0][:200]}.") from error
    return _described(session.get_inputs()), _described(session.get_outputs())


def _described(nodes: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"name": node.name, "type": node.type, "shape": list(node.shape)} for node in nodes]
