"""An embedder that exists in tests only, and galleries of random faces."""

from __future__ import annotations

import numpy as np

from matchers.base import FloatArray, GalleryFace
from models.card import ModelCard

DIMENSION = 64


def make_card(name: str, dimension: int) -> ModelCard:
    """Card of an embedder that exists in tests only."""
    return ModelCard(
        name=name,
        task="embedding",
        family="embedding",
        layout="NCHW",
        colour="RGB",
        mean=(0.0, 0.0, 0.0),
        scale=(1.0, 1.0, 1.0),
        input_size=(112, 112),
        dimension=dimension,
        alignment="similarity",
        licence="MIT",
        origin="none",
        origin_sha256="",
        threshold=0.5,
        space=name,
    )


def unit_rows(count: int, dimension: int = DIMENSION, seed: int = 0) -> FloatArray:
    """(count, dimension) float32, random rows of length 1."""
    rows = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def make_faces(count: int, dimension: int = DIMENSION, seed: int = 0, prefix: str = "") -> list[GalleryFace]:
    """One face per picture, three pictures per person."""
    return [
        GalleryFace(f"{prefix}p{i // 3}", f"{prefix}p{i // 3}/{i % 3}.jpg", f"{i:040x}", row, (i, 1, 20, 30))
        for i, row in enumerate(unit_rows(count, dimension, seed))
    ]


def make_clusters(
    people: int, queries: int, dimension: int = DIMENSION, seed: int = 0
) -> tuple[list[GalleryFace], FloatArray]:
    """Five pictures of each person, 0.2 to 0.5 apart, and more pictures of some: (queries, dimension) float32."""
    random = np.random.default_rng(seed)
    centres = unit_rows(people, dimension, seed)
    spread = np.sqrt(random.uniform(0.25, 0.7, people))

    def pictures(who: np.ndarray) -> FloatArray:
        noise = random.standard_normal((len(who), dimension)) / np.sqrt(dimension)
        rows = centres[who] + spread[who, None] * noise
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    rows = pictures(np.repeat(np.arange(people), 5))
    faces = [
        GalleryFace(f"p{i // 5}", f"p{i // 5}/{i % 5}.jpg", f"{i:040x}", row, (0, 0, 9, 9))
        for i, row in enumerate(rows)
    ]
    return faces, pictures(random.choice(people, queries, replace=False))
