"""How good a picture of a face is, from its box, its landmarks and its pixels.

The limits were measured with the default models on 40 portraits of 8 people and 6 group pictures (64 faces). Each
portrait was worsened and compared with the other pictures of its person; "named" means nearer to one of them than to
anybody else and within the embedder's threshold.

| what was done | sharpness, median (90 %) | smaller side | named |
|---|---|---|---|
| nothing | 0.776 (lowest of all 64 faces in focus: 0.147) | 123 px | 40 of 40 |
| Gaussian blur, sigma 2 px | 0.059 (0.088) | | 40 |
| sigma 3 px | 0.028 (0.043) | | 38 |
| sigma 5 px | 0.016 (0.023) | | 16 |
| scaled to 40 % | | 51 px | 40 |
| scaled to 25 % | | 32 px | 40 |
| scaled to 20 % | | 24 px | 27 |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from runtime.align import align_similarity
from runtime.faces import FloatArray, ImageArray

Fault = Literal["face_too_small", "face_blurred", "face_turned"]

CROP = 112
SIDE_REFUSED, SIDE_POOR = 30.0, 50.0
SHARPNESS_REFUSED, SHARPNESS_POOR = 0.03, 0.06
# The nose's place between the eyes: 0.5 is frontal, 60 of the 64 faces lie within 0.15 to 0.85. Beyond an eye is
# profile.
TURN_REFUSED, TURN_POOR = 0.6, 0.35
ROLL_POOR = 45.0
# Where landmarks lie in a box of the detector `haar`, in parts of its sides: medians of 59 faces of the same pictures.
_IN_BOX = np.array([[0.31, 0.39], [0.68, 0.38], [0.49, 0.62], [0.34, 0.76], [0.66, 0.75]])
# Eyes, nose and mouth on the 112 x 112 template: what lies around may be background or beyond the picture's edge.
_ROWS, _COLUMNS = slice(44, 100), slice(32, 80)


@dataclass(frozen=True, slots=True)
class Quality:
    """Measures of one face.

    Attributes:
        side: smaller side of the box, pixels.
        sharpness: variance of the Laplacian over the variance of the grey levels, in the middle of the 112 x 112
            crop; the quotient does not depend on contrast.
        turn: how far the nose lies off the middle of the eyes, in distances of the eyes; 0 is frontal.
        roll: angle of the eyes to the horizontal, degrees.
    """

    side: float
    sharpness: float
    turn: float
    roll: float

    def faults(self) -> dict[Fault, str]:
        """Why the picture should not be enrolled, in words, by code; empty when it may be."""
        return self._beyond(SIDE_REFUSED, SHARPNESS_REFUSED, TURN_REFUSED, math.inf)

    def weaknesses(self) -> dict[Fault, str]:
        """What is worse than it should be without being a fault."""
        poor = self._beyond(SIDE_POOR, SHARPNESS_POOR, TURN_POOR, ROLL_POOR)
        return {code: text for code, text in poor.items() if code not in self.faults()}

    def _beyond(self, side: float, sharpness: float, turn: float, roll: float) -> dict[Fault, str]:
        found: dict[Fault, str] = {}
        if self.side < side:
            found["face_too_small"] = (
                f"The face is only {self.side:.0f} pixels wide or high. Send one of {SIDE_POOR:.0f} pixels or more."
            )
        if self.sharpness < sharpness:
            found["face_blurred"] = (
                f"The face is blurred (sharpness {self.sharpness:.3f}, {SHARPNESS_POOR} or more is good). "
                "Send a picture that is in focus."
            )
        if self.turn > turn:
            found["face_turned"] = "The face looks to the side. Send a picture in which it looks into the camera."
        elif abs(self.roll) > roll:
            found["face_turned"] = f"The head is tilted by {abs(self.roll):.0f} degrees. Send an upright picture."
        return found


def portrait(image: ImageArray, box: FloatArray, landmarks: FloatArray) -> ImageArray:
    """The face in a crop of (112, 112, 3) uint8, channels as in ``image``; upright where its landmarks are known.

    Args:
        image: (h, w, 3) uint8.
        box: (4,) float32, pixels: x, y, width, height; all that counts unless all landmarks are known.
        landmarks: (5, 2) float32, pixels; NaN where not found.
    """
    if not np.isfinite(landmarks).all():
        landmarks = np.asarray(box[:2] + _IN_BOX * box[2:], np.float32)
    return np.asarray(align_similarity(image, landmarks[None], (CROP, CROP))[0], np.uint8)


def measure(crop: ImageArray, box: FloatArray, landmarks: FloatArray) -> Quality:
    """Measure one face.

    Args:
        crop: what :func:`portrait` cut out, BGR.
        box: (4,) float32, pixels of the picture: x, y, width, height.
        landmarks: (5, 2) float32, pixels of the picture; NaN where not found, and what they would tell is not judged.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)[_ROWS, _COLUMNS]
    contrast = max(float(grey.var()), 1.0)
    first, second, nose = landmarks[:3].astype(np.float64)
    eyes = second - first
    distance = max(float(np.linalg.norm(eyes)), 1e-6)
    along = float((nose - first) @ eyes) / distance**2
    return Quality(
        side=float(min(box[2], box[3])),
        sharpness=float(cv2.Laplacian(grey, cv2.CV_64F).var()) / contrast,
        turn=abs(along - 0.5),
        roll=math.degrees(math.atan2(eyes[1], eyes[0])),
    )
