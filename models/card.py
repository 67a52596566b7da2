"""The model card: the contract that an ``.onnx`` file carries in its own ``metadata_props``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal

from models.errors import CardError

METADATA_KEY = "face_model_card"

Task = Literal["detection", "embedding"]
Layout = Literal["NCHW", "NHWC"]
ColourOrder = Literal["RGB", "BGR"]
Alignment = Literal["similarity", "deepface", "deepface-opencv5", "none"]
Precision = Literal["fp32", "fp16", "int8"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "task": ("detection", "embedding"),
    "layout": ("NCHW", "NHWC"),
    "colour": ("RGB", "BGR"),
    "alignment": ("similarity", "deepface", "deepface-opencv5", "none"),
    "precision": ("fp32", "fp16", "int8"),
}


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a runtime has to know to feed a model and to read its answer.

    A network input is ``(pixel - mean) * scale``, per channel in ``colour`` order, on pixels of 0 to 255.

    Attributes:
        name: catalog name, also part of gallery file and table names, for example ``sface``.
        task: ``detection`` or ``embedding``.
        family: which decoder reads the outputs (``retinaface-mobilenet``, ``yunet``, ``scrfd``, ``embedding``).
        layout: ``NCHW`` or ``NHWC``.
        colour: channel order that the network expects.
        mean: three numbers, in ``colour`` order.
        scale: three factors, in ``colour`` order.
        input_size: ``(width, height)`` in pixels; ``(0, 0)`` when any multiple of 32 will do.
        dimension: length of an embedding, 0 for a detector.
        alignment: ``similarity`` (5-point ArcFace template), ``deepface``, ``deepface-opencv5`` (as DeepFace does it on
            OpenCV 5, which turns faces with other rounding) or ``none`` (detectors).
        template_shift: ``(x, y)`` pixels added to the 112 x 112 ArcFace template (for 96 x 112 networks ``(-8, 0)``).
        threshold: cosine distance up to which two faces count as one person; None for a detector.
        threshold_origin: how the threshold was chosen.
        licence: SPDX expression or a short text.
        origin: file name of the source weights.
        origin_sha256: sha256 of the source weights, lower-case hex.
        space: name of the embedding space; galleries of equal ``space`` are comparable.
        versions: versions of the tools that wrote the file.
        parity: figures of the comparison with the source, for example ``{"cosine_min": 0.9999999}``.
        notes: anything that a person should know.
        precision: of the arithmetic: ``fp32``, ``fp16``, or ``int8`` (quantised, in a space of its own).
        compatible_space: the fp32 space whose galleries this network may search and extend, since its embeddings were
            tested against that space's; "" when there is none.
        measured: how a network of another precision was made and how it did, figures and sentences by name.
    """

    name: str
    task: Task
    family: str
    layout: Layout
    colour: ColourOrder
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    input_size: tuple[int, int]
    dimension: int
    alignment: Alignment
    licence: str
    origin: str
    origin_sha256: str
    template_shift: tuple[float, float] = (0.0, 0.0)
    threshold: float | None = None
    threshold_origin: str = ""
    space: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, float] = field(default_factory=dict)
    notes: str = ""
    precision: Precision = "fp32"
    compatible_space: str = ""
    measured: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def as_deepface(self) -> bool:
        """Whether faces are cut out as DeepFace does it."""
        return self.alignment in ("deepface", "deepface-opencv5")

    @property
    def gallery_space(self) -> str:
        """The space of the galleries that this network searches: those of its fp32 source where that was tested."""
        return self.compatible_space or self.space

    def to_json(self) -> str:
        """The card as one line of JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Read a card written by :meth:`to_json`.

        Raises:
            CardError: the text is not a card, lacks a field, or a field holds a value that is not admitted.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise CardError(f"the model card is not JSON: {error}") from error
        if not isinstance(raw, dict):
            raise CardError("the model card is not a JSON object")
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {key: value for key, value in raw.items() if key in known}
        for key in ("mean", "scale", "input_size", "template_shift"):
            if isinstance(values.get(key), list):
                values[key] = tuple(values[key])
        try:
            card = cls(**values)
        except TypeError as error:
            raise CardError(f"the model card is incomplete: {error}") from error
        card._check()
        return card

    def _check(self) -> None:
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise CardError(f"the model card's {key} is {getattr(self, key)!r}, not one of {', '.join(choices)}")
        for key, length in (("mean", 3), ("scale", 3), ("input_size", 2), ("template_shift", 2)):
            value = getattr(self, key)
            if not isinstance(value, tuple) or len(value) != length:
                raise CardError(f"the model card's {key} must hold {length} numbers, it holds {value!r}")
            if not all(isinstance(number, int | float) and math.isfinite(number) for number in value):
                raise CardError(f"the model card's {key} must hold finite numbers, it holds {value!r}")
        if self.task == "embedding" and (self.dimension < 1 or self.threshold is None):
            raise CardError("an embedding model's card needs a dimension and a threshold")


def read_card(metadata: Mapping[str, str], path: Path) -> ModelCard:
    """The card among the metadata of the ONNX file at ``path``.

    Args:
        metadata: the file's ``metadata_props``, for example ``session.get_modelmeta().custom_metadata_map``.
        path: the file, named in errors.

    Raises:
        CardError: there is no card, or it is wrong.
    """
    text = metadata.get(METADATA_KEY)
    if text is None:
        raise CardError(
            f"{path} carries no model card. "
            f"Write one with `python -m convert adopt {path} --preset NAME --output OUT.onnx`."
        )
    try:
        return ModelCard.from_json(text)
    except CardError as error:
        raise CardError(f"{path}: {error}. Fetch or adopt the model again.") from error


def load_card(path: Path) -> ModelCard:
    """The card of the ONNX file at ``path``, read without loading the network.

    Raises:
        CardError: the file cannot be read, is not ONNX, or carries no valid card.
    """
    try:
        with path.open("rb") as file:
            metadata = _read_metadata(file, path.stat().st_size)
    except (OSError, ValueError) as error:
        advice = "Copy it anew, or have `python -m convert fetch --force` make it anew."
        raise CardError(f"{path} cannot be read as an ONNX model: {error}. {advice}") from error
    return read_card(metadata, path)


def card_or_none(path: Path) -> ModelCard | None:
    """The same; None where there is none that is valid."""
    try:
        return load_card(path)
    except CardError:
        return None


# Field numbers of onnx.proto: ModelProto.metadata_props = 14, StringStringEntryProto.key = 1 and .value = 2.
_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2


def _read_metadata(file: BinaryIO, size: int) -> dict[str, str]:
    """``metadata_props`` of an ONNX file; every other top-level field, the graph above all, is skipped unread."""
    metadata = {}
    for number, start, length in _fields(file, 0, size):
        if number != _METADATA_PROPS:
            continue
        entry = {}
        for inner, inner_start, inner_length in _fields(file, start, start + length):
            file.seek(inner_start)
            entry[inner] = file.read(inner_length).decode()
        metadata[entry.get(_KEY, "")] = entry.get(_VALUE, "")
    return metadata


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, offset and length of each length-delimited protobuf field between two offsets."""
    position = start
    while position < end:
        file.seek(position)
        tag = _varint(file)
        wire = tag & 7
        if wire == 0:
            _varint(file)
            position = file.tell()
        elif wire in (1, 5):
            position = file.tell() + (8 if wire == 1 else 4)
        elif wire == 2:
            length = _varint(file)
            position = file.tell() + length
            if position <= end:
                yield tag >> 3, position - length, length
        else:
            raise ValueError("it is no protobuf message")
    if position != end:
        raise ValueError("it is cut off")


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it is cut off")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("it is no protobuf message")
