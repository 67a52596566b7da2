"""Presets: what is known of published networks, and how a model card is made of one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from models.card import Alignment, ColourOrder, Layout, ModelCard, Task
from models.errors import CardError, PresetError
from models.verify import DETECTOR_OUTPUTS

Triple = tuple[float, float, float]
Values = Sequence[Mapping[str, Any]]

INSIGHTFACE_ORIGIN = (
    "provisional: DeepFace's cosine threshold for InsightFace's buffalo_l (deepface/config/threshold.py); "
    "measure your own with `python -m benchmarks.threshold DIR`"
)
DEEPFACE_ORIGIN = "DeepFace's own cosine threshold for ArcFace (deepface/config/threshold.py)"
SFACE_ORIGIN = "the default of this project's SFace, measured with benchmarks/threshold.py"


@dataclass(frozen=True, slots=True)
class Preset:
    """How a family of published networks wants to be fed and read.

    Attributes:
        name: what users call it.
        about: one line for people.
        task, family, layout, colour, licence, mean, scale, alignment, template_shift: see
            :class:`models.card.ModelCard`; likewise threshold, threshold_origin and notes.
        input_size: ``(width, height)`` that the network must have; None takes what the network has.
        dimension: length of an embedding that the network must have; None takes what the network has.
        model: name of the one network that the preset is for, which galleries go by whatever its file is called.
    """

    name: str
    about: str
    task: Task
    family: str
    layout: Layout
    colour: ColourOrder
    licence: str
    mean: Triple = (0.0, 0.0, 0.0)
    scale: Triple = (1.0, 1.0, 1.0)
    alignment: Alignment = "none"
    template_shift: tuple[float, float] = (0.0, 0.0)
    input_size: tuple[int, int] | None = None
    dimension: int | None = None
    threshold: float | None = None
    threshold_origin: str = ""
    notes: str = ""
    model: str = ""


_INSIGHTFACE_ARCFACE = Preset(
    name="insightface-arcface",
    about="ArcFace of an InsightFace pack (w600k_r50.onnx, glintr100.onnx, ...)",
    task="embedding",
    family="embedding",
    layout="NCHW",
    colour="RGB",
    licence="non-commercial research only (InsightFace)",
    mean=(127.5, 127.5, 127.5),
    scale=(1 / 127.5, 1 / 127.5, 1 / 127.5),
    alignment="similarity",
    threshold=0.55,
    threshold_origin=INSIGHTFACE_ORIGIN,
)
_DEEPFACE_ARCFACE = Preset(
    name="deepface-arcface",
    about="DeepFace's ArcFace, ResNet-34 (arcface_weights.h5, arcface_weights.onnx)",
    task="embedding",
    family="embedding",
    layout="NHWC",
    colour="BGR",
    licence="not stated by the publisher",
    scale=(1 / 255, 1 / 255, 1 / 255),
    alignment="deepface",
    input_size=(112, 112),
    dimension=512,
    threshold=0.68,
    threshold_origin=DEEPFACE_ORIGIN,
    notes="Fed as DeepFace feeds it with normalization `base`: BGR, divided by 255.",
)
_SCRFD = Preset(
    name="insightface-scrfd",
    about="SCRFD detector of InsightFace (det_10g.onnx, scrfd_2.5g_kps.onnx, ...)",
    task="detection",
    family="scrfd",
    layout="NCHW",
    colour="RGB",
    licence="non-commercial research only (InsightFace)",
    mean=(127.5, 127.5, 127.5),
    scale=(1 / 128, 1 / 128, 1 / 128),
)

PRESETS = (
    _INSIGHTFACE_ARCFACE,
    _DEEPFACE_ARCFACE,
    replace(
        _DEEPFACE_ARCFACE,
        name="deepface-arcface-normalized",
        about='the same network for galleries that DeepFace wrote with normalization="ArcFace"',
        mean=(127.5, 127.5, 127.5),
        scale=(1 / 128, 1 / 128, 1 / 128),
        notes="Fed as DeepFace feeds it with normalization `ArcFace`: BGR, (pixel - 127.5) / 128.",
    ),
    replace(
        _INSIGHTFACE_ARCFACE,
        name="sface",
        about="SFace of OpenCV Zoo (face_recognition_sface_2021dec.onnx)",
        licence="Apache-2.0",
        mean=(0.0, 0.0, 0.0),
        scale=(1.0, 1.0, 1.0),
        input_size=(112, 112),
        dimension=128,
        threshold=0.60,
        threshold_origin=SFACE_ORIGIN,
        notes="Normalises its input itself: raw pixels of 0 to 255 go in.",
    ),
    replace(
        _INSIGHTFACE_ARCFACE,
        name="mobilefacenet-112x96",
        about="MobileFaceNet of 96 x 112 pixels, the ArcFace template shifted 8 pixels to the left",
        layout="NHWC",
        licence="not stated by the publisher",
        scale=(1 / 128, 1 / 128, 1 / 128),
        template_shift=(-8.0, 0.0),
        input_size=(96, 112),
        threshold=0.60,
        threshold_origin="provisional; measure your own with `python -m benchmarks.threshold DIR`",
    ),
    _SCRFD,
    replace(
        _SCRFD,
        name="insightface-retinaface",
        about="RetinaFace detector of an InsightFace pack",
        family="insightface-retinaface",
    ),
    Preset(
        name="deepface-retinaface",
        about="DeepFace's RetinaFace, ResNet-50 (package retina-face)",
        task="detection",
        family="retinaface-resnet50",
        layout="NHWC",
        colour="RGB",
        licence="MIT",
        model="retinaface-r50",
    ),
)


@dataclass(frozen=True, slots=True)
class Changes:
    """What the card should say instead of the preset; None keeps what the preset says.

    Attributes:
        name: name of the model, part of gallery and table names.
        space: name of the embedding space.
        Others: see :class:`models.card.ModelCard`.
    """

    name: str | None = None
    colour: ColourOrder | None = None
    mean: Triple | None = None
    scale: Triple | None = None
    alignment: Alignment | None = None
    template_shift: tuple[float, float] | None = None
    threshold: float | None = None
    threshold_origin: str | None = None
    space: str | None = None
    licence: str | None = None
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where weights come from.

    Attributes:
        name: file name.
        sha256: of the file, lower-case hex.
    """

    name: str
    sha256: str


def find_preset(name: str) -> Preset:
    """The preset ``name``; raises PresetError with the known names."""
    for preset in PRESETS:
        if preset.name == name:
            return preset
    raise PresetError(f"There is no preset {name!r}. There are: {', '.join(preset.name for preset in PRESETS)}.")


def make_card(
    preset: Preset, changes: Changes, name: str, signature: tuple[Values, Values], origin: Origin
) -> ModelCard:
    """The card of a network with these inputs and outputs (name, type, shape), without versions and parity.

    Args:
        preset: what is known.
        changes: what the user says instead.
        name: name of the model unless ``changes`` or the preset says another.
        signature: inputs and outputs of the network.
        origin: its source.

    Raises:
        PresetError: the network does not fit the preset; the message says where, and which presets would fit.
    """
    inputs, outputs = signature
    preset = _laid_out(preset, inputs)
    problems = fit_preset(preset, inputs, outputs)
    if problems:
        fitting = [other.name for other in PRESETS if not fit_preset(_laid_out(other, inputs), inputs, outputs)]
        advice = f"It fits {', '.join(fitting)}." if fitting else "It fits no other preset either."
        raise PresetError(f"{origin.name} does not fit the preset {preset.name}: {' '.join(problems)} {advice}")
    said = {key: value for key, value in asdict(changes).items() if value is not None}
    is_embedder = preset.task == "embedding"
    name = said.pop("name", preset.model or name)
    if "threshold" in said:
        said.setdefault("threshold_origin", "given on the command line")
    values = {
        "name": name,
        "task": preset.task,
        "family": preset.family,
        "layout": preset.layout,
        "colour": preset.colour,
        "mean": preset.mean,
        "scale": preset.scale,
        "input_size": _size(preset, inputs),
        "dimension": outputs[0]["shape"][-1] if is_embedder else 0,
        "alignment": preset.alignment,
        "template_shift": preset.template_shift,
        "threshold": preset.threshold,
        "threshold_origin": preset.threshold_origin,
        "licence": preset.licence,
        "origin": origin.name,
        "origin_sha256": origin.sha256,
        "space": f"{name}-{origin.sha256[:12]}" if is_embedder else "",
        "notes": preset.notes,
    }
    try:
        return ModelCard.from_json(json.dumps(values | said))
    except CardError as error:
        raise PresetError(f"No card can be made: {error}.") from error


def fed_as(preset: Preset, graph: Any) -> Preset:
    """The preset as it suits a network: an ArcFace of InsightFace that normalises its input itself takes raw pixels.

    Args:
        graph: an ``onnx.GraphProto``.
    """
    if preset.name != "insightface-arcface" or not _normalises_itself(graph):
        return preset
    return replace(preset, mean=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0), notes="Normalises its input itself.")


def _normalises_itself(graph: Any) -> bool:
    """Whether the first nodes subtract and multiply, so that raw pixels go in (as InsightFace's loader decides)."""
    names = [node.name + node.op_type for node in graph.node[:8]]
    return any("Sub" in name or "_minus" in name for name in names) and any(
        "Mul" in name or "_mul" in name for name in names
    )


def _laid_out(preset: Preset, inputs: Values) -> Preset:
    """The preset of an embedder in the layout that the network has: where its three channels are, tells it.

    `python -m convert export` writes channels first what Keras has channels last.
    """
    shape = list(inputs[0]["shape"]) if len(inputs) == 1 else []
    if preset.task != "embedding" or len(shape) != 4 or (shape[1] == 3) == (shape[3] == 3):
        return preset
    return replace(preset, layout="NCHW" if shape[1] == 3 else "NHWC")


def fit_preset(preset: Preset, inputs: Values, outputs: Values) -> list[str]:
    """Where a network does not fit a preset, one sentence each."""
    if len(inputs) != 1:
        return [f"It has {len(inputs)} inputs; one is expected."]
    shape = list(inputs[0]["shape"])
    if len(shape) != 4 or inputs[0]["type"] != "tensor(float)":
        return [f"Its input is {inputs[0]['type']} {shape}; a float tensor of 4 dimensions is expected."]
    problems = []
    axis = 1 if preset.layout == "NCHW" else 3
    if shape[axis] != 3 or (isinstance(shape[4 - axis], int) and shape[4 - axis] == 3):
        problems.append(f"Its input {shape} is not {preset.layout} with 3 channels.")
    elif preset.input_size is not None and 0 not in (size := _size(preset, inputs)) and size != preset.input_size:
        width, height = size
        problems.append(f"Its input is {width} x {height}, not {preset.input_size[0]} x {preset.input_size[1]}.")
    if preset.task == "embedding":
        problems += _embedding_problems(preset, shape, outputs)
    elif len(outputs) not in DETECTOR_OUTPUTS[preset.family]:
        counts = " or ".join(str(count) for count in DETECTOR_OUTPUTS[preset.family])
        problems.append(f"It has {len(outputs)} outputs; {preset.family} has {counts}.")
    return problems


def _embedding_problems(preset: Preset, shape: Sequence[int | str], outputs: Values) -> list[str]:
    problems = []
    sides = shape[2:] if preset.layout == "NCHW" else shape[1:3]
    if not all(isinstance(side, int) for side in sides):
        problems.append(f"Its input {list(shape)} has no fixed width and height.")
    if len(outputs) != 1 or not outputs[0]["shape"] or not isinstance(outputs[0]["shape"][-1], int):
        problems.append(f"Its outputs are {[list(o['shape']) for o in outputs]}; one of (n, numbers) is expected.")
    elif preset.dimension is not None and outputs[0]["shape"][-1] != preset.dimension:
        problems.append(f"It gives {outputs[0]['shape'][-1]} numbers a face, not {preset.dimension}.")
    return problems


def _size(preset: Preset, inputs: Values) -> tuple[int, int]:
    """Width and height of the network's input; 0 where any will do."""
    shape = inputs[0]["shape"]
    height, width = shape[2:] if preset.layout == "NCHW" else shape[1:3]
    return (width if isinstance(width, int) else 0, height if isinstance(height, int) else 0)
