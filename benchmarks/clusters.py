"""Faces of made-up people: pictures of one person 0.2 to 0.55 apart in cosine distance, of different people about 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matchers.base import FloatArray, GalleryFace

PICTURES = 5
"""Pictures of each person."""
_PEOPLE = 2000


@dataclass(frozen=True, slots=True)
class Clusters:
    """The same faces at every call.

    Attributes:
        faces: how many; a multiple of :data:`PICTURES`.
        dimension: of an embedding.
        seed: other people for other numbers.
    """

    faces: int
    dimension: int = 512
    seed: int = 0

    @property
    def people(self) -> int:
        """How many people."""
        return self.faces // PICTURES

    def blocks(self) -> Iterator[tuple[int, FloatArray]]:
        """Number of the first face, and (n, dimension) float32, unit rows."""
        for start in range(0, self.people, _PEOPLE):
            count = min(_PEOPLE, self.people - start)
            yield start * PICTURES, self._pictures(start, count, np.repeat(np.arange(count), PICTURES), 0)

    def rows(self) -> FloatArray:
        """All of them, (faces, dimension) float32."""
        rows = np.empty((self.people * PICTURES, self.dimension), np.float32)
        for start, block in self.blocks():
            rows[start : start + len(block)] = block
        return rows

    def queries(self, count: int) -> FloatArray:
        """One more picture of ``count`` of the people, (count, dimension) float32."""
        who = np.random.default_rng((self.seed, 1)).choice(self.people, min(count, self.people), replace=False)
        parts = []
        for start in range(0, self.people, _PEOPLE):
            here = who[(who >= start) & (who < start + _PEOPLE)] - start
            parts.append(self._pictures(start, min(_PEOPLE, self.people - start), here, 1))
        return np.concatenate(parts)

    @staticmethod
    def source(number: int) -> str:
        """The picture of a row."""
        return f"p{number // PICTURES}/{number % PICTURES}.jpg"

    def face(self, number: int, row: FloatArray) -> GalleryFace:
        """The face of a row."""
        return GalleryFace(
            f"p{number // PICTURES}", self.source(number), f"{number:040x}", row, (number % 5, 1, 99, 99)
        )

    def _pictures(self, start: int, count: int, who: npt.NDArray[np.int64], which: int) -> FloatArray:
        random = np.random.default_rng((self.seed, 2, start))
        centres = random.standard_normal((count, self.dimension), np.float32)
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        spread = np.sqrt(random.uniform(0.25, 1.0, count)).astype(np.float32)
        noise = np.random.default_rng((self.seed, 3 + which, start)).standard_normal(
            (len(who), self.dimension), np.float32
        )
        rows = centres[who] + spread[who, None] * noise / np.float32(np.sqrt(self.dimension))
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
