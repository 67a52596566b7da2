from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtime.align import ARCFACE_TEMPLATE, align_similarity, similarity_transforms


@given(
    angle=st.floats(-3.1, 3.1),
    scale=st.floats(0.2, 20),
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
)
def test_a_turned_scaled_and_moved_template_is_brought_back(angle: float, scale: float, x: float, y: float) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (ARCFACE_TEMPLATE @ turn.T + (x, y)).astype(np.float32)
    (matrix,) = similarity_transforms(landmarks[None], ARCFACE_TEMPLATE)
    back = landmarks @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(back - ARCFACE_TEMPLATE).max() < 0.02


@given(st.integers(0, 2**31))
def test_no_similarity_fits_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    landmarks = (ARCFACE_TEMPLATE + rng.normal(0, 8, (5, 2))).astype(np.float32)
    (best,) = similarity_transforms(landmarks[None], ARCFACE_TEMPLATE)

    def misfit(matrix: np.ndarray) -> float:
        return float(((landmarks @ matrix[:, :2].T + matrix[:, 2] - ARCFACE_TEMPLATE) ** 2).sum())

    a, b = rng.normal(0, 0.01, 2)
    other = best + np.array([[a, -b, rng.normal()], [b, a, rng.normal()]])
    assert misfit(best) <= misfit(other) + 1e-9


def test_crops_show_the_landmarks_at_the_template() -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    landmarks = (ARCFACE_TEMPLATE * 2 + (80, 60)).astype(np.float32)
    for x, y in landmarks:
        image[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4] = 255
    (crop,) = align_similarity(image, landmarks[None])
    assert crop.shape == (112, 112, 3)
    for x, y in ARCFACE_TEMPLATE:
        assert crop[round(y), round(x)].min() > 200


def test_no_faces_give_no_crops() -> None:
    assert align_similarity(np.zeros((9, 9, 3), np.uint8), np.empty((0, 5, 2), np.float32)).shape == (0, 112, 112, 3)
