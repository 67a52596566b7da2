"""What detection and analysis return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
ImageArray = npt.NDArray[np.uint8]
Crops = npt.NDArray[np.uint8 | np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Faces found in one picture, largest score first.

    Attributes:
        boxes: (n, 4) float32, pixels: x, y, width, height.
        landmarks: (n, 5, 2) float32, pixels, x then y; order: the eye on the picture's left, the eye on its right,
            nose, the mouth corner on the picture's left, the mouth corner on its right.
        scores: (n,) float32, 0 to 1.
    """

    boxes: FloatArray
    landmarks: FloatArray
    scores: FloatArray

    def __len__(self) -> int:
        return int(self.scores.shape[0])

    def take(self, indices: npt.NDArray[np.intp]) -> Detections:
        """The faces at ``indices``, in that order."""
        return Detections(self.boxes[indices], self.landmarks[indices], self.scores[indices])


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """One picture, analysed.

    Attributes:
        width, height: pixels, after EXIF orientation.
        detections: the faces found.
        embeddings: (n, d) float32, each row of length 1, row i belongs to face i.
        timing_ms: milliseconds by stage: ``decode``, ``detect``, ``align``, ``embed``.
    """

    width: int
    height: int
    detections: Detections
    embeddings: FloatArray
    timing_ms: dict[str, float]
