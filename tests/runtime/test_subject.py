"""The one face that a picture is of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.decode import decode
from runtime.engine import FaceEngine
from runtime.faces import ImageArray
from runtime.subject import BATCH, find_subject, read_subjects


@pytest.fixture(scope="module")
def group(group_picture: Path) -> ImageArray:
    return decode(group_picture.read_bytes())


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, ImageArray], Path]:
    def write(name: str, image: ImageArray) -> Path:
        path = tmp_path / name
        cv2.imwrite(str(path), image)
        return path

    return write


def face(engine: FaceEngine, image: ImageArray, index: int, margin: float) -> ImageArray:
    """One face of ``image``, cut with ``margin`` of its box around it (negative: inside the box)."""
    x, y, width, height = engine.detector.detect(image).boxes[index]
    left, right = max(int(x - margin * width), 0), int(x + width + margin * width)
    top, bottom = max(int(y - margin * height * 0.6), 0), int(y + height + margin * height * 0.6)
    return image[top:bottom, left:right]


def test_the_face_in_the_middle_counts_not_the_one_with_the_best_score(engine: FaceEngine, group: ImageArray) -> None:
    boxes = engine.detector.detect(group).boxes
    bystanders = 0
    for x, y, width, height in boxes:
        size = int(4 * max(width, height))
        around = cv2.copyMakeBorder(group, size, size, size, size, cv2.BORDER_CONSTANT)
        middle_x, middle_y = int(x + width / 2) + size, int(y + height / 2) + size
        image = np.asarray(
            around[middle_y - size // 2 : middle_y + size // 2, middle_x - size // 2 : middle_x + size // 2], np.uint8
        )
        found, bordered = find_subject(engine, image)
        assert not bordered
        centre = found.boxes[0, :2] + found.boxes[0, 2:] / 2
        assert np.abs(centre - size / 2).max() < max(width, height) / 2
        bystanders += len(found) - 1
    assert bystanders > 3


def test_a_crop_that_is_all_face_gets_a_border(engine: FaceEngine, group: ImageArray) -> None:
    image = face(engine, group, 0, -0.3)
    assert len(engine.detector.detect(image)) == 0
    found, bordered = find_subject(engine, image)
    assert (len(found), bordered) == (1, True)
    # In pixels of the picture itself: the face fills it.
    x, y, width, height = found.boxes[0]
    assert -0.5 * image.shape[1] <= x < 0.3 * image.shape[1]
    assert -0.5 * image.shape[0] <= y < 0.3 * image.shape[0]
    assert width * height > 0.5 * image.shape[0] * image.shape[1]
    assert np.all(np.abs(found.landmarks[0].mean(axis=0) / image.shape[1::-1] - 0.5) < 0.3)


def test_tight_grey_crops_stay_the_same_person(
    engine: FaceEngine, group: ImageArray, write: Callable[[str, ImageArray], Path]
) -> None:
    whole = engine.embed_image(group).embeddings
    paths = []
    for index in range(len(whole)):
        crop = cv2.resize(face(engine, group, index, 0.05), (100, 120))
        grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
        paths.append(write(f"{index}.png", np.asarray(grey, np.uint8)))
    subjects = read_subjects(engine, paths)
    assert [subject.problem for subject in subjects] == [""] * len(whole)
    distances = 1 - np.array([subject.embedding for subject in subjects]) @ whole.T
    assert distances.argmin(axis=1).tolist() == list(range(len(whole)))
    assert np.diag(distances).max() < 0.3


def test_pictures_keep_their_order_and_bad_ones_say_why(
    engine: FaceEngine, group: ImageArray, write: Callable[[str, ImageArray], Path], tmp_path: Path
) -> None:
    good = [write(f"good{index}.png", face(engine, group, index, 0.4)) for index in range(3)]
    wall = write("wall.png", np.full((60, 60, 3), 90, np.uint8))
    (text := tmp_path / "text.jpg").write_text("no picture")
    gone = tmp_path / "gone.jpg"
    paths = [good[0], wall, good[1], text, gone, good[2], *([good[0]] * BATCH)]
    seen: list[tuple[int, int]] = []
    subjects = read_subjects(engine, paths, lambda done, total: seen.append((done, total)))
    assert [subject.path for subject in subjects] == paths
    assert [subject.embedding is not None for subject in subjects[:6]] == [True, False, True, False, False, True]
    for subject, part in zip(
        (subjects[1], subjects[3], subjects[4]), ("No face", "not a picture", "cannot be read"), strict=True
    ):
        assert part in subject.problem
    assert seen == [(BATCH, len(paths)), (len(paths), len(paths))]
    first, again = subjects[0].embedding, subjects[-1].embedding
    assert first is not None
    assert again is not None
    assert float(first @ again) == pytest.approx(1, abs=1e-3)
    assert read_subjects(engine, []) == []
