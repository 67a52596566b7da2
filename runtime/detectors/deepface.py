"""What DeepFace does around its detectors (``modules/detection.py``, 0.0.96 to 0.0.103, ``align=True``)."""

from __future__ import annotations

import cv2
import numpy as np

from runtime.faces import FloatArray, ImageArray


def with_border(image: ImageArray) -> tuple[ImageArray, int, int]:
    """The picture with a black border of half its width and height on every side, on which DeepFace detects.

    Returns:
        the bordered picture, and the width of the border at the left and at the top in pixels.
    """
    top, left = image.shape[0] // 2, image.shape[1] // 2
    framed = cv2.copyMakeBorder(image, top, top, left, left, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    return np.asarray(framed, np.uint8), left, top


def reported(areas: FloatArray, image: ImageArray) -> FloatArray:
    """Boxes as DeepFace reports and stores them; what it cuts out are the areas themselves.

    A corner outside the picture is moved to its edge while the size stays, and what then reaches the right or lower
    edge ends one pixel before it.

    Args:
        areas: (n, 4) float32, whole pixels of ``image``: x, y, width, height; may reach beyond the picture.
        image: (h, w, 3).

    Returns:
        (n, 4) float32, pixels.
    """
    height, width = image.shape[:2]
    corners = np.maximum(areas[:, :2], 0)
    sizes = np.minimum(areas[:, 2:], np.array([width, height], np.float32) - corners - 1)
    return np.concatenate([corners, sizes], axis=1).astype(np.float32)
