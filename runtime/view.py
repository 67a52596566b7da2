"""A picture at the size at which it was decoded, and faces both there and in the full picture.

Detectors look at a few hundred pixels and embedders at crops of 112, so most of a large photo is decoded for nothing. A
JPEG is decoded at a half, a quarter or an eighth of its size for little more than the reading of its bytes. Measured on
six pictures of 29 faces and eight portraits, enlarged to 3000 and to 4160 pixels:

| the crop, pixels per pixel of the reduced picture | cosine to the embedding out of the full picture: least, median |
|---|---|
| up to 0.5 | 0.997, 0.9997 |
| 0.5 to 0.8 | 0.997, 0.999 |
| 0.8 to 0.9 | 0.996, 0.997 |
| 0.9 to 1 | 0.994, 0.996 |
| 1 to 1.15 | 0.990, 0.994 |
| 1.6 to 2 | 0.957, 0.976 |
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.align import crop_scales
from runtime.faces import Detections, FloatArray, ImageArray, cut_at_edges

FACTORS = (8, 4, 2)

# Below, less than a third of the time for decoding is saved, and a second look costs what it costs.
_LEAST_PIXELS = 4_000_000
# Canvas pixels per pixel of the reduced picture. What is left after a step of two lies between a half of this and this.
_LARGEST_VIEW_SCALE = 2 / 3
# Crop pixels per pixel of the reduced picture; above 1 details would be missing.
_LARGEST_CROP_SCALE = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Pixels of a picture.

    Attributes:
        pixels: (h, w, 3) uint8 BGR, upright.
        width, height: of the full picture, upright.
        factor: rows and columns of the full picture for each of ``pixels``.
        left, top: rows and columns of the full picture by which ``pixels`` reach beyond its left and upper edge; at the
            other edges it is what is then left over.
    """

    pixels: ImageArray
    width: int
    height: int
    factor: int = 1
    left: int = 0
    top: int = 0

    def in_full(self, found: Detections) -> Detections:
        """Faces that were found in ``pixels``, in pixels of the full picture and cut at its edges.

        Detectors count places from the corner of the first pixel, so that these grow with the picture.
        """
        if self.factor == 1:
            return found
        grown = found.scaled(self.factor).moved(-self.left, -self.top)
        boxes = cut_at_edges(grown.boxes, self.width, self.height)
        return Detections(boxes, grown.landmarks, grown.scores, grown.areas)

    def inside(self, found: Detections) -> Detections:
        """Faces of the full picture where :mod:`runtime.align` finds them in ``pixels``: it counts from the middle of
        the first pixel."""
        if self.factor == 1:
            return found
        corner = found.moved(self.left + 0.5, self.top + 0.5)
        return corner.scaled(1 / self.factor).moved(-0.5, -0.5)


def factor_to_detect(width: int, height: int, scale: float) -> int:
    """At which part of its size a detector may look at a picture: 1, 2, 4 or 8.

    Args:
        width, height: of the picture.
        scale: pixels that the detector sees per picture pixel.
    """
    if width * height < _LEAST_PIXELS:
        return 1
    return next((factor for factor in FACTORS if scale * factor <= _LARGEST_VIEW_SCALE), 1)


def factor_to_cut(landmarks: FloatArray, most: int) -> int:
    """At which part of a picture's size every face is still larger than its crop: 1, 2, ... ``most``.

    Args:
        landmarks: (n, 5, 2) float32, pixels of the full picture.
        most: the factor of what was decoded.
    """
    scale = float(crop_scales(landmarks).max(initial=0.0))
    while most > 1 and scale * most > _LARGEST_CROP_SCALE:
        most //= 2
    return most
