"""Letterboxing onto a few fixed canvases, and what is common to reading detector outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from runtime.faces import Detections, ImageArray, cut_at_edges

Size = tuple[int, int]
# Of a smaller picture, the rows that fill no block would be too large a share.
_LEAST_SIDE = 160


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """A picture on a canvas: scaled, at the top left, the rest filled.

    Attributes:
        pixels: (height, width, 3) uint8.
        scale: canvas pixels per picture pixel.
    """

    pixels: ImageArray
    scale: float


def choose_canvas(width: int, height: int, canvases: Sequence[Size], max_scale: float) -> Size:
    """The canvas that shows the picture largest, enlarged ``max_scale`` times at most; of equals the smallest one."""
    return max(canvases, key=lambda size: (scale_to_fit(width, height, size, max_scale), -size[0] * size[1]))


def scale_to_fit(width: int, height: int, size: Size, max_scale: float) -> float:
    """Canvas pixels per picture pixel of a picture that fits ``size`` (width, height), ``max_scale`` at most."""
    return min(size[0] / width, size[1] / height, max_scale)


def letterbox(image: ImageArray, size: Size, max_scale: float = 1.0, fill: int = 0) -> Canvas:
    """Scale ``image`` to fit ``size`` (width, height), enlarging at most ``max_scale`` times, and pad it.

    Pictures that shrink are averaged over the area, which keeps small faces from aliasing.
    """
    height, width = image.shape[:2]
    scale = scale_to_fit(width, height, size, max_scale)
    target = (max(1, min(size[0], round(width * scale))), max(1, min(size[1], round(height * scale))))
    resized = image
    if target != (width, height):
        smaller = _halved(image, scale)
        interpolation = cv2.INTER_AREA if scale < 0.5 and smaller is image else cv2.INTER_LINEAR
        resized = np.asarray(cv2.resize(smaller, target, interpolation=interpolation), np.uint8)
    pixels = np.full((size[1], size[0], 3), fill, np.uint8)
    pixels[: target[1], : target[0]] = resized
    return Canvas(pixels, scale)


def _halved(image: ImageArray, scale: float) -> ImageArray:
    """``image`` with blocks of 2 x 2 averaged, or 4 x 4, ..., as long as it stays larger than at ``scale``.

    Whole blocks are averaged ten times as fast as fractions of pixels. Rows and columns that fill none are left out.
    """
    factor = 1
    while scale * factor <= 0.5:
        factor *= 2
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    if factor == 1 or min(rows, columns) < _LEAST_SIDE:
        return image
    whole = image[: rows * factor, : columns * factor]
    return np.asarray(cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def to_detections(found: Detections, *, scale: float, iou_threshold: float, image: ImageArray) -> Detections:
    """Non-maximum suppression, then canvas pixels to picture pixels.

    Faces whose centre lies outside the picture (on the padding) are dropped; boxes are cut at the picture's edges.

    Args:
        found: faces in canvas pixels, in any order.
        scale: canvas pixels per picture pixel.
        iou_threshold: boxes that overlap a better one by more are dropped.
        image: the picture, (h, w, 3).
    """
    height, width = image.shape[:2]
    kept = np.asarray(cv2.dnn.NMSBoxes(found.boxes.tolist(), found.scores.tolist(), 0.0, iou_threshold), np.intp)
    kept = kept.reshape(-1)
    kept = kept[np.argsort(-found.scores[kept], kind="stable")]
    boxes, landmarks, scores = found.boxes[kept] / scale, found.landmarks[kept] / scale, found.scores[kept]
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    inside = (centres > 0).all(axis=1) & (centres < (width, height)).all(axis=1)
    boxes = cut_at_edges(boxes, width, height)
    return Detections(boxes[inside], landmarks[inside].astype(np.float32), scores[inside].astype(np.float32))
