"""Folders of an InsightFace pack (``~/.insightface/models/buffalo_l``) as they are: cards made without copying a file.

Which file does what is decided as ``insightface.model_zoo`` does: a network with five outputs or more detects, one that
takes squares of at least 112 pixels recognises, and of several the first by name counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.card import ModelCard, Task
from models.errors import ModelError, PresetError
from models.presets import Changes, Origin, fed_as, find_preset, make_card
from models.store import file_sha256
from models.verify import fit_problems

_PRESETS: Mapping[Task, str] = {"detection": "insightface-scrfd", "embedding": "insightface-arcface"}
_FEWEST_OUTPUTS = 5
_SIDE, _STEP = 112, 16


@dataclass(frozen=True, slots=True, eq=False)
class _Network:
    """One file of a pack, read without running it.

    Attributes:
        inputs, outputs: as :func:`models.verify.signature` gives them.
        graph: an ``onnx.GraphProto``.
    """

    path: Path
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    graph: Any


def find_in_pack(folder: Path, task: Task) -> tuple[ModelCard, Path]:
    """The pack's network for ``task``, with a card after the checks of ``python -m convert adopt`` on its form.

    Raises:
        ModelError: there is none, it cannot be read, or it is not what the pack should hold.
    """
    seen = []
    for network in _networks(folder):
        found = _task(network)
        if found == task:
            return _card(folder, network, task), network.path
        seen.append(f"{network.path.name} ({found or 'something else'})")
    listed = ", ".join(seen) or "no .onnx file"
    raise ModelError(
        f"{folder} holds no network for {task}; it holds {listed}. Name the folder of an InsightFace pack, such as "
        "~/.insightface/models/buffalo_l, or the path of one `.onnx` file with a card."
    )


def _networks(folder: Path) -> Iterator[_Network]:
    # Imported here: only a pack needs it, and it takes a good part of a second.
    import onnx  # noqa: PLC0415

    for path in sorted(folder.glob("*.onnx")):
        try:
            graph = onnx.load(path, load_external_data=False).graph
        except Exception as error:
            raise ModelError(
                f"{path} cannot be read as an ONNX model: {str(error)[:200]}. Get the pack again."
            ) from error
        constants = {tensor.name for tensor in graph.initializer}
        inputs = [_described(value, onnx) for value in graph.input if value.name not in constants]
        yield _Network(path, inputs, [_described(value, onnx) for value in graph.output], graph)


def _task(network: _Network) -> Task | None:
    if len(network.outputs) >= _FEWEST_OUTPUTS:
        return "detection"
    shape = network.inputs[0]["shape"] if len(network.inputs) == 1 else []
    if len(shape) == 4 and shape[2] == shape[3] and isinstance(shape[2], int):
        # 192 x 192 finds landmarks and 96 x 96 tells age and sex.
        recognises = shape[2] >= _SIDE and shape[2] % _STEP == 0 and shape[2] != 192
        return "embedding" if recognises and len(network.outputs) == 1 else None
    return None


def _card(folder: Path, network: _Network, task: Task) -> ModelCard:
    preset = fed_as(find_preset(_PRESETS[task]), network.graph)
    origin = Origin(network.path.name, file_sha256(network.path))
    name = f"{folder.resolve().name}-{network.path.stem}"
    card = make_card(preset, Changes(), name, (network.inputs, network.outputs), origin)
    problems = fit_problems(card, network.inputs, network.outputs)
    if problems:
        raise PresetError(
            f"{network.path} cannot be used as it is: {' '.join(problems)} "
            f"`python -m convert adopt {network.path} --preset {preset.name} --output OUT.onnx` makes a copy that can."
        )
    return card


def _described(value: Any, onnx: Any) -> dict[str, Any]:
    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    shape = [dim.dim_value or dim.dim_param or None for dim in tensor.shape.dim]
    return {"name": value.name, "type": f"tensor({kind})", "shape": shape}
