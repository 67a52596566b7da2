"""Landmarks to upright, equally sized face crops."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from runtime.faces import FloatArray, ImageArray
from runtime.warp import cubic_warp

ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float64,
)
"""Where the five landmarks lie in a 112 x 112 crop: (5, 2), pixels, x then y (InsightFace, ``face_align.py``)."""


def similarity_transforms(landmarks: FloatArray, template: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Least-squares similarity (scale, rotation, shift; no mirroring) that takes each face's landmarks to the template.

    Written with points as complex numbers the solution is one quotient: with centred points p and q,
    ``a = sum(conj(p) q) / sum(|p|^2)``, the case without reflection of Umeyama (1991), equation 40.

    Args:
        landmarks: (n, 5, 2) float32, pixels, x then y.
        template: (5, 2) float64, pixels.

    Returns:
        (n, 2, 3) float64 matrices, picture to crop.
    """
    points = landmarks[..., 0].astype(np.float64) + 1j * landmarks[..., 1]
    target = template[:, 0] + 1j * template[:, 1]
    centre = points.mean(axis=1, keepdims=True)
    centred = points - centre
    spread = np.maximum((np.abs(centred) ** 2).sum(axis=1), 1e-12)
    factor = (np.conj(centred) * (target - target.mean())).sum(axis=1) / spread
    shift = target.mean() - factor * centre[:, 0]
    matrices = np.empty((len(points), 2, 3))
    matrices[:, 0] = np.stack([factor.real, -factor.imag, shift.real], axis=1)
    matrices[:, 1] = np.stack([factor.imag, factor.real, shift.imag], axis=1)
    return matrices


def crop_scales(landmarks: FloatArray) -> npt.NDArray[np.float64]:
    """Crop pixels per picture pixel of :func:`align_similarity`: (n, 5, 2) float32, pixels, to (n,) float64."""
    matrices = similarity_transforms(landmarks, ARCFACE_TEMPLATE)
    return np.asarray(np.hypot(matrices[:, 0, 0], matrices[:, 1, 0]))


def align_similarity(
    image: ImageArray,
    landmarks: FloatArray,
    size: tuple[int, int] = (112, 112),
    shift: tuple[float, float] = (0.0, 0.0),
) -> ImageArray:
    """Cut every face out of ``image``, turned and scaled so that its landmarks fall on the ArcFace template.

    Args:
        image: (h, w, 3) uint8.
        landmarks: (n, 5, 2) float32, pixels of ``image``.
        size: width and height of a crop.
        shift: pixels added to the template.

    Returns:
        (n, size[1], size[0], 3) uint8, channels as in ``image``; black beyond the picture's edge.
    """
    matrices = similarity_transforms(landmarks, ARCFACE_TEMPLATE + np.asarray(shift))
    crops = np.empty((len(landmarks), size[1], size[0], 3), np.uint8)
    for crop, matrix in zip(crops, matrices, strict=True):
        cv2.warpAffine(image, matrix, size, dst=crop, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return crops


def align_deepface(
    image: ImageArray,
    boxes: FloatArray,
    landmarks: FloatArray,
    size: tuple[int, int] = (112, 112),
    *,
    exact: bool = False,
) -> FloatArray:
    """Cut every face out of ``image`` as DeepFace does: level the eyes, cut the box, letterbox it.

    The geometry is that of DeepFace 0.0.96 to 0.0.103 (``modules/detection.py``, ``modules/preprocessing.py``) with
    ``align=True`` and ``expand_percentage=0``: whole pixels, rotation about the middle of the box's surroundings. Its
    black border around the picture is not built; what lies outside the picture is black all the same.

    Args:
        image: (h, w, 3) uint8.
        boxes: (n, 4) float32, pixels: x, y, width, height.
        landmarks: (n, 5, 2) float32, pixels, the eyes first; without both eyes (NaN) a face is not turned.
        size: width and height of a crop.
        exact: turn faces as DeepFace does on OpenCV 5; otherwise as on OpenCV 4, which rounds places to 1/32 pixel.

    Returns:
        (n, size[1], size[0], 3) float32, 0 to 255, channels as in ``image``; black for a box without a whole pixel.
    """
    crops = np.zeros((len(boxes), size[1], size[0], 3), np.float32)
    for crop, box, points in zip(crops, boxes, landmarks, strict=True):
        x, y, width, height = (math.floor(value) for value in box)
        if width > 0 and height > 0:
            _letterbox(_level(image, (x, y, width, height), points[:2], exact=exact), crop)
    return crops


def _level(image: ImageArray, box: tuple[int, int, int, int], eyes: FloatArray, *, exact: bool) -> ImageArray:
    """The box's pixels after its surroundings (half a box on every side) were turned until the eyes are level."""
    x, y, width, height = box
    left, top = width // 2, height // 2
    if not np.isfinite(eyes).all():
        return _cut(image, box)
    (first_x, first_y), (second_x, second_y) = np.floor(eyes)
    angle = math.degrees(math.atan2(second_y - first_y, second_x - first_x))
    if angle == 0:
        return _cut(image, box)
    around = _cut(image, (x - left, y - top, width + 2 * left, height + 2 * top))
    around_height, around_width = around.shape[:2]
    turn = cv2.getRotationMatrix2D((around_width // 2, around_height // 2), angle, 1.0)
    # DeepFace projects the box through the turn, but the box's middle is the middle of the surroundings and stays.
    if exact:
        return cubic_warp(around, np.asarray(turn, np.float64), (left, top, width, height))
    # What lies beyond the box is not needed; what lies before it is: OpenCV rounds places that it counts from zero.
    size = (left + width, top + height)
    turned = cv2.warpAffine(around, turn, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(turned[top:, left:], np.uint8)


def _cut(image: ImageArray, box: tuple[int, int, int, int]) -> ImageArray:
    """The box's pixels, (height, width, 3) uint8, black outside the picture."""
    x, y, width, height = box
    cut = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + width, image.shape[1]), min(y + height, image.shape[0])
    if x1 < x2 and y1 < y2:
        cut[y1 - y : y2 - y, x1 - x : x2 - x] = image[y1:y2, x1:x2]
    return cut


def _letterbox(face: ImageArray, crop: FloatArray) -> None:
    """Scale ``face`` into the middle of ``crop``, without rounding to whole grey levels, as DeepFace does."""
    height, width = face.shape[:2]
    factor = min(crop.shape[0] / height, crop.shape[1] / width)
    # Truncated: 97 * (112 / 97) is 111.99..., and DeepFace's face then has 111 rows.
    new_width, new_height = max(1, int(width * factor)), max(1, int(height * factor))
    top, left = (crop.shape[0] - new_height) // 2, (crop.shape[1] - new_width) // 2
    crop[top : top + new_height, left : left + new_width] = cv2.resize(face.astype(np.float64), (new_width, new_height))
