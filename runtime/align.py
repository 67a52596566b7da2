"""Landmarks to upright, equally sized face crops."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from runtime.faces import FloatArray, ImageArray

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
