"""The model card: the contract that an ``.onnx`` file carries in its own ``metadata_props``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from models.errors import CardError

METADATA_KEY = "face_model_card"

Task = Literal["detection", "embedding"]
Layout = Literal["NCHW", "NHWC"]
ColourOrder = Literal["RGB", "BGR"]
Alignment = Literal["similarity", "deepface", "none"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "task": ("detection", "embedding"),
    "layout": ("NCHW", "NHWC"),
    "colour": ("RGB", "BGR"),
    "alignment": ("similarity", "deepface", "none"),
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
        alignment: ``similarity`` (5-point ArcFace template), ``deepface`` or ``none`` (detectors).
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
        if self.task == "embedding" and (self.dimension < 1 or self.threshold is None):
            raise CardError("an embedding model's card needs a dimension and a threshold")
