"""Picture to faces: one module per family of detectors, one protocol for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from models.card import ModelCard
from models.errors import CardError
from runtime.detectors.haar import Haar
from runtime.detectors.insightface import InsightFaceDetector
from runtime.detectors.retinaface import RetinaFace
from runtime.detectors.retinaface_resnet50 import RetinaFaceResNet50
from runtime.detectors.yunet import YuNet
from runtime.faces import Detections, ImageArray
from runtime.session import SharedSession


class Detector(Protocol):
    """Finds faces. Implementations are safe from any thread."""

    @property
    def card(self) -> ModelCard:
        """The model's contract."""
        ...

    def scale(self, width: int, height: int) -> float | None:
        """Pixels that the network sees per pixel of a picture of ``width`` and ``height``; None when the detector gives
        what a peer gives, and so must have every pixel."""
        ...

    def detect(self, image: ImageArray) -> Detections:
        """Faces of ``image`` ((h, w, 3) uint8 BGR), largest score first."""
        ...


_FAMILIES: dict[str, Callable[[SharedSession], Detector]] = {
    "retinaface-mobilenet": RetinaFace,
    "retinaface-resnet50": RetinaFaceResNet50,
    "yunet": YuNet,
    "scrfd": InsightFaceDetector,
    "insightface-retinaface": InsightFaceDetector,
}

_BUILT_IN: dict[str, Callable[[ModelCard], Detector]] = {"haar": Haar}

EYES_AT_MOST = frozenset({"haar"})
"""Families that find eyes at most: not enough for the alignment `similarity`."""


MANY_SHAPES = frozenset({"retinaface-resnet50"})
"""Families whose network sees pictures of any shape, so that its session must not keep memory for each."""


def open_built_in(card: ModelCard) -> Detector:
    """The detector of a card of :data:`models.builtin.BUILT_IN`.

    Raises:
        ModelError: the library that ships it lacks it.
    """
    return _BUILT_IN[card.family](card)


def open_detector(session: SharedSession) -> Detector:
    """The detector that reads this model's outputs.

    Raises:
        CardError: the model is not a detector, or its family is not known.
    """
    card = session.card
    if card.task != "detection":
        raise CardError(f"{session.path} is an {card.task} model; DETECTOR needs a detection model.")
    if card.family not in _FAMILIES:
        raise CardError(f"{session.path} is of family {card.family!r}; known are {', '.join(sorted(_FAMILIES))}.")
    return _FAMILIES[card.family](session)
