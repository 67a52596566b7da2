"""RetinaFace with a ResNet-50 (Deng et al. 2020, arXiv:1905.00641) as the package ``retina-face`` 0.0.19 and DeepFace
around it use it: their sizes, thresholds, rounding and suppression, so that boxes are theirs to the pixel.

The network sees pictures in the shape that their resizing gives, of which there are thousands. Fixed canvases would
keep the memory small but change what it sees near the padding; instead its session keeps no memory between runs
(``SessionOptions.arena``).
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from runtime.detectors.deepface import reported, with_border
from runtime.faces import Detections, ImageArray
from runtime.session import SharedSession, as_batch

Doubles = npt.NDArray[np.float64]

# RetinaFace.detect_faces and preprocess.preprocess_image of retina-face; the threshold is DeepFace's.
SHORT_SIDE, LONG_SIDE = 1024, 1980
SCORE_THRESHOLD, IOU_THRESHOLD = 0.9, 0.4

# Corners of the anchors at the first cell: sides 512 and 256, 128 and 64, 32 and 16 about (7.5, 7.5).
_STRIDES = {
    32: ((-248.0, -248.0, 263.0, 263.0), (-120.0, -120.0, 135.0, 135.0)),
    16: ((-56.0, -56.0, 71.0, 71.0), (-24.0, -24.0, 39.0, 39.0)),
    8: ((-8.0, -8.0, 23.0, 23.0), (0.0, 0.0, 15.0, 15.0)),
}


class RetinaFaceResNet50:
    """Reads nine outputs, for each of the strides 32, 16 and 8 scores (1, h, w, 4), boxes (1, h, w, 8) and landmarks
    (1, h, w, 20). Safe from any thread."""

    def __init__(self, session: SharedSession) -> None:
        self.session = session
        self.card = session.card

    def scale(self, width: int, height: int) -> None:
        """Of any picture every pixel is needed: boxes are DeepFace's to the pixel."""

    def detect(self, image: ImageArray) -> Detections:
        """Faces of ``image`` ((h, w, 3) uint8 BGR), largest score first, in whole pixels as DeepFace has them."""
        framed, left, top = with_border(image)
        if is_sliver(framed):
            return Detections.none()
        scaled, scale = resize(framed)
        outputs = self.session.run({self.session.inputs[0]: as_batch(scaled[None], self.card)})
        corners, landmarks, scores = decode(outputs, (scaled.shape[1], scaled.shape[0]), scale)
        whole = corners.astype(np.int64)
        boxes = np.concatenate([whole[:, :2], whole[:, 2:] - whole[:, :2]], axis=1).astype(np.float32)
        found = Detections(boxes, np.trunc(landmarks).astype(np.float32), scores.astype(np.float32)).moved(-left, -top)
        return Detections(reported(found.boxes, image), found.landmarks, found.scores, found.boxes)


def resize(image: ImageArray) -> tuple[ImageArray, float]:
    """The picture with a shorter side of 1024 pixels, or a longer one of 1980 if it would be more, and the factor."""
    scale = _factor(image)
    if scale == 1.0:
        return image, scale
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR), np.uint8), scale


def is_sliver(image: ImageArray) -> bool:
    """Whether a side is so short that resizing leaves nothing of it."""
    return bool(np.round(min(image.shape[:2]) * _factor(image)) < 1)


def _factor(image: ImageArray) -> float:
    short, long = sorted(image.shape[:2])
    scale: float = SHORT_SIDE / short
    if np.round(scale * long) > LONG_SIDE:
        scale = LONG_SIDE / long
    return scale


def decode(
    outputs: list[npt.NDArray[np.float32]], size: tuple[int, int], scale: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Faces from the network's nine outputs, best first.

    Args:
        outputs: see :class:`RetinaFaceResNet50`.
        size: width and height that the network saw.
        scale: pixels that the network saw per picture pixel.

    Returns:
        corners (n, 4) float32, landmarks (n, 5, 2) float32, in picture pixels, and scores (n,) float32.
    """
    corners, landmarks, scores = [], [], []
    for index, stride in enumerate(_STRIDES):
        score, offsets, points = (output[0] for output in outputs[3 * index : 3 * index + 3])
        rows, columns = score.shape[:2]
        face = score[..., 2:].reshape(-1)
        kept = np.flatnonzero(face >= SCORE_THRESHOLD)
        anchors = _anchors(stride, rows, columns)[kept]
        corners.append(_boxes(anchors, offsets.reshape(-1, 4)[kept], size) / scale)
        landmarks.append(_points(anchors, points.reshape(-1, 5, 2)[kept]) / np.float32(scale))
        scores.append(face[kept])
    found, marks, score = np.concatenate(corners).astype(np.float32), np.concatenate(landmarks), np.concatenate(scores)
    order = score.argsort()[::-1]
    found, marks, score = found[order], marks[order], score[order]
    best = suppress(found, IOU_THRESHOLD)
    return found[best], marks[best].astype(np.float32), score[best]


def suppress(corners: npt.NDArray[np.float32], limit: float) -> list[int]:
    """Indices of the boxes that no better one overlaps by ``limit`` or more; pixels at both ends count.

    Args:
        corners: (n, 4) float32, best first.
    """
    sizes = corners[:, 2:] - corners[:, :2] + 1
    areas = sizes[:, 0] * sizes[:, 1]
    alive = np.ones(len(corners), np.bool_)
    best = []
    for index in range(len(corners)):
        if not alive[index]:
            continue
        best.append(index)
        common = np.minimum(corners[index, 2:], corners[:, 2:]) - np.maximum(corners[index, :2], corners[:, :2]) + 1
        shared = np.maximum(common, 0).prod(axis=1)
        alive &= shared / (areas[index] + areas - shared) < limit
    return best


@lru_cache(maxsize=16)
def _anchors(stride: int, rows: int, columns: int) -> Doubles:
    """Corners of the anchors of all cells, row by row, two each: (rows * columns * 2, 4) float64."""
    down, right = np.mgrid[:rows, :columns] * stride
    cells = np.stack([right, down, right, down], axis=-1)[:, :, None, :]
    anchors = (cells + np.array(_STRIDES[stride], np.float64)).reshape(-1, 4)
    anchors.setflags(write=False)
    return anchors


def _boxes(anchors: Doubles, offsets: npt.NDArray[np.float32], size: tuple[int, int]) -> Doubles:
    """Corners (n, 4) float64, cut at the edges of what the network saw."""
    sides = anchors[:, 2:] - anchors[:, :2] + 1
    middles = offsets[:, :2] * sides + (anchors[:, :2] + (sides - 1) / 2)
    half = (np.exp(offsets[:, 2:]) * sides - 1) / 2
    last = np.array([size[0] - 1, size[1] - 1] * 2)
    return np.asarray(np.clip(np.concatenate([middles - half, middles + half], axis=1), 0, last), np.float64)


def _points(anchors: Doubles, offsets: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Landmarks (n, 5, 2) float32 in pixels of what the network saw."""
    sides = anchors[:, 2:] - anchors[:, :2] + 1
    middles = anchors[:, :2] + (sides - 1) / 2
    return (offsets * sides[:, None] + middles[:, None]).astype(np.float32)
