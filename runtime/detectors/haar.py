"""Viola and Jones' cascades (CVPR 2001) as DeepFace's detector backend ``opencv`` uses them.

The cascades ship inside ``opencv-python-headless`` 4; OpenCV 5 has them no more.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path

import cv2
import numpy as np

from models.card import ModelCard
from models.errors import ModelError
from runtime.detectors.deepface import reported, with_border
from runtime.faces import Detections, FloatArray, ImageArray

# deepface/models/face_detection/OpenCv.py.
_SCALE_STEP = 1.1
_NEIGHBOURS = 10

_FACE, _EYE = "haarcascade_frontalface_default.xml", "haarcascade_eye.xml"


class Haar:
    """Boxes by one cascade, eyes in them by another. Safe from any thread: each has cascades of its own."""

    def __init__(self, card: ModelCard) -> None:
        """Raises ModelError when this OpenCV ships no cascades."""
        self.card = card
        self._own = threading.local()
        self._cascades()

    def scale(self, width: int, height: int) -> None:
        """Of any picture every pixel is needed: DeepFace's cascades see them."""

    def detect(self, image: ImageArray) -> Detections:
        """Faces of ``image`` ((h, w, 3) uint8 BGR), largest score first.

        The score is w / (1 + w) for the weight w of the cascade's last stage. Landmarks are NaN but for the eyes, and
        these too unless both were found.
        """
        faces, eyes = self._cascades()
        framed, left, top = with_border(image)
        found, _, weights = faces.detectMultiScale3(framed, _SCALE_STEP, _NEIGHBOURS, outputRejectLevels=True)
        boxes = np.asarray(found, np.float32).reshape(-1, 4)
        weight = np.maximum(np.asarray(weights, np.float32).reshape(-1), 0)
        landmarks = np.full((len(boxes), 5, 2), np.nan, np.float32)
        for points, (x, y, width, height) in zip(landmarks, boxes.astype(int), strict=True):
            points[:2] = _eyes(eyes, framed[y : y + height, x : x + width]) + np.array([x, y], np.float32)
        order = np.argsort(-weight, kind="stable")
        areas = Detections(boxes, landmarks, weight / (1 + weight)).take(order).moved(-left, -top)
        return Detections(reported(areas.boxes, image), areas.landmarks, areas.scores, areas.boxes)

    def _cascades(self) -> tuple[cv2.CascadeClassifier, cv2.CascadeClassifier]:
        found: tuple[cv2.CascadeClassifier, cv2.CascadeClassifier] | None = getattr(self._own, "cascades", None)
        if found is None:
            found = self._own.cascades = _load(_FACE), _load(_EYE)
        return found


def _eyes(cascade: cv2.CascadeClassifier, face: ImageArray) -> FloatArray:
    """Centres of the two largest of the eyes found, the left one of the picture first; NaN when there are not two.

    Args:
        face: the pixels of a face's box, BGR.

    Returns:
        (2, 2) float32, whole pixels of ``face``.
    """
    found = cascade.detectMultiScale(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), _SCALE_STEP, _NEIGHBOURS)
    if len(found) < 2:
        return np.full((2, 2), np.nan, np.float32)
    one, other = sorted(found, key=lambda eye: int(eye[2]) * int(eye[3]), reverse=True)[:2]
    # Of two that start in the same column the larger one is the right one, as with DeepFace.
    pair = (one, other) if one[0] < other[0] else (other, one)
    return np.array([[math.floor(x + w / 2), math.floor(y + h / 2)] for x, y, w, h in pair], np.float32)


def _load(name: str) -> cv2.CascadeClassifier:
    path = Path(cv2.__file__).parent / "data" / name
    if not hasattr(cv2, "CascadeClassifier") or not path.is_file():
        raise ModelError(
            f"OpenCV {cv2.__version__} has no Haar cascades, which the detector `haar` needs. "
            "Install `opencv-python-headless>=4.12,<5`, or set DETECTOR=retinaface."
        )
    return cv2.CascadeClassifier(str(path))
