"""Other pictures of a face than the one that is there: mirrored, cut a little differently, in other light, coarser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from convert.portraits import Portrait
from runtime.faces import Detections, ImageArray

SHIFT, TURN, SIZE = 0.04, 0.10, 0.06
"""Largest shift in parts of the face's size, turn in radians and change of size: what detectors differ by."""
GAIN, OFFSET = 0.35, 25.0
"""Largest change of contrast, and of brightness in grey levels."""

COARSE = 2.5
"""How much coarser a picture may be: of a face that was small, or out of focus."""

_MIRRORED = np.array([1, 0, 2, 4, 3])
"""Left eye and right eye change places, and so do the corners of the mouth."""


def views(portraits: Sequence[Portrait], count: int, seed: int = 0) -> list[Portrait]:
    """``count`` portraits: those given, in turn, each time seen otherwise; the first time as they are.

    Args:
        portraits: at least one, unless ``count`` is 0.
        count: how many; fewer than there are portraits takes the first ones.
        seed: equal seeds give equal views.
    """
    random = np.random.default_rng(seed)
    chosen = [portraits[index % len(portraits)] for index in range(count)]
    return [
        one if index < len(portraits) else another_view(one, random, mirrored=(index // len(portraits)) % 2 == 1)
        for index, one in enumerate(chosen)
    ]


def another_view(portrait: Portrait, random: np.random.Generator, *, mirrored: bool) -> Portrait:
    """The same face in other light, coarser, landmarks a little off: as another photo and another detector give it."""
    if mirrored:
        portrait = mirror(portrait)
    image = _coarser(_relit(portrait.image, random), random)
    return replace(portrait, image=image, face=_moved(portrait.face, random))


def mirror(portrait: Portrait) -> Portrait:
    """The face as in a looking-glass, landmarks in their order again."""
    width = portrait.image.shape[1]
    boxes, landmarks = portrait.face.boxes.copy(), portrait.face.landmarks[:, _MIRRORED].copy()
    boxes[:, 0] = width - boxes[:, 0] - boxes[:, 2]
    landmarks[..., 0] = width - 1 - landmarks[..., 0]
    image = np.ascontiguousarray(portrait.image[:, ::-1])
    return replace(portrait, image=image, face=Detections(boxes, landmarks, portrait.face.scores))


def _relit(image: ImageArray, random: np.random.Generator) -> ImageArray:
    gain = 1 + random.uniform(-GAIN, GAIN)
    levels = (np.arange(256) - 127.5) * gain + 127.5 + random.uniform(-OFFSET, OFFSET)
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return np.asarray(table[image], np.uint8)


def _coarser(image: ImageArray, random: np.random.Generator) -> ImageArray:
    height, width = image.shape[:2]
    factor = random.uniform(1, COARSE)
    small = cv2.resize(
        image, (max(round(width / factor), 1), max(round(height / factor), 1)), interpolation=cv2.INTER_AREA
    )
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _moved(face: Detections, random: np.random.Generator) -> Detections:
    """Box and landmarks shifted, turned and scaled together about the box's middle."""
    boxes, landmarks = face.boxes.astype(np.float64), face.landmarks.astype(np.float64)
    size = boxes[:, 2:].mean(axis=1, keepdims=True)
    middle = boxes[:, :2] + boxes[:, 2:] / 2
    shift = random.uniform(-SHIFT, SHIFT, (1, 2)) * size
    angle, scale = random.uniform(-TURN, TURN), 1 + random.uniform(-SIZE, SIZE)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (landmarks - middle[:, None]) @ turn.T + (middle + shift)[:, None]
    sides = boxes[:, 2:] * scale
    boxes = np.concatenate([middle + shift - sides / 2, sides], axis=1)
    return Detections(boxes.astype(np.float32), landmarks.astype(np.float32), face.scores)
