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
            nose, the mouth corner on the picture's left, the mouth corner on its right. NaN for a point that was not
            found (the detector `haar` finds eyes at most).
        scores: (n,) float32, 0 to 1.
        areas: (n, 4) float32, pixels: what the alignment `deepface` cuts out, where that is more than the box since
            it reaches beyond the picture's edges; None: the boxes.
    """

    boxes: FloatArray
    landmarks: FloatArray
    scores: FloatArray
    areas: FloatArray | None = None

    @classmethod
    def none(cls) -> Detections:
        """No face."""
        return cls(np.empty((0, 4), np.float32), np.empty((0, 5, 2), np.float32), np.empty(0, np.float32))

    def __len__(self) -> int:
        return int(self.scores.shape[0])

    def take(self, indices: npt.NDArray[np.intp]) -> Detections:
        """The faces at ``indices``, in that order."""
        areas = None if self.areas is None else self.areas[indices]
        return Detections(self.boxes[indices], self.landmarks[indices], self.scores[indices], areas)

    def moved(self, x: float, y: float) -> Detections:
        """The same faces in a picture whose origin lies ``x`` and ``y`` pixels further left and up."""
        shift = np.array([x, y, 0, 0], np.float32)
        areas = None if self.areas is None else self.areas + shift
        return Detections(self.boxes + shift, self.landmarks + shift[:2], self.scores, areas)

    def scaled(self, factor: float) -> Detections:
        """The same faces in the picture ``factor`` times as large."""
        by = np.float32(factor)
        areas = None if self.areas is None else self.areas * by
        return Detections(self.boxes * by, self.landmarks * by, self.scores, areas)


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """One picture, analysed.

    Attributes:
        width, height: pixels, after EXIF orientation.
        detections: the faces found.
        embeddings: (n, d) float32, each row of length 1, row i belongs to face i.
        timing_ms: milliseconds by stage: ``decode``, ``detect``, ``align``, ``embed``.
        factors: what the picture's sides were divided by when it was decoded: (1,) in full, (4,) at a quarter, (4, 1)
            at a quarter for the detector and then in full for the crops.
    """

    width: int
    height: int
    detections: Detections
    embeddings: FloatArray
    timing_ms: dict[str, float]
    factors: tuple[int, ...] = (1,)


def cut_at_edges(boxes: FloatArray, width: int, height: int) -> FloatArray:
    """The part of each box that lies in a picture of ``width`` and ``height``: (n, 4) float32, x, y, width, height."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    corners = np.clip(corners, 0, (width, height, width, height))
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).astype(np.float32)
