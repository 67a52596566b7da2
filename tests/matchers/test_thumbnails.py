"""Small pictures of faces for people to look at."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from matchers.thumbnails import small_picture
from runtime.faces import ImageArray


def seen(image: ImageArray, box: tuple[float, float, float, float]) -> ImageArray:
    data = np.frombuffer(small_picture(image, np.asarray(box, np.float32)), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


@pytest.mark.parametrize("box", [(60, 60, 40, 50), (0, 0, 40, 50), (165, 160, 40, 50), (-10, 100, 40, 50)])
def test_a_face_is_shown_with_what_is_around_it(box: tuple[float, float, float, float]) -> None:
    image = np.full((200, 200, 3), 200, np.uint8)
    x, y, width, height = (int(value) for value in box)
    image[max(y, 0) : y + height, max(x, 0) : x + width] = (0, 0, 255)
    small = seen(image, box)
    assert small.shape == (112, 112, 3)
    red = small[..., 1].astype(int) < 100
    assert 0.2 < red.mean() < 0.6
    assert small.max(axis=2).min() > 150, "nothing from beyond the edge of the picture"


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (400, 3), (30, 30)])
def test_a_picture_may_be_smaller_than_its_face_and_of_any_shape(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 90, np.uint8)
    assert seen(image, (-20, -20, 500, 500)).shape == (112, 112, 3)
