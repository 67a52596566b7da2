"""RetinaFace with a ResNet-50, read as the package retina-face reads it (benchmarks/retinaface_peer.py)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models.card import ModelCard
from runtime.decode import decode as read
from runtime.detectors import open_detector
from runtime.detectors.deepface import with_border
from runtime.detectors.retinaface_resnet50 import RetinaFaceResNet50, decode, resize, suppress
from runtime.providers import CPU, SessionOptions
from runtime.session import SharedSession
from tests.retinaface import save_small


@pytest.fixture(scope="module")
def heads() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("retinaface_heads.npz")) as file:
        return dict(file)


@pytest.mark.parametrize("number", range(3))
def test_faces_from_made_up_outputs_are_those_of_the_package(heads: dict[str, np.ndarray], number: int) -> None:
    height, width = heads[f"height_width_{number}"]
    scaled, scale = resize(np.zeros((height, width, 3), np.uint8))
    outputs = [
        heads[f"{part}_{number}_{stride}"] for stride in (32, 16, 8) for part in ("scores", "boxes", "landmarks")
    ]
    corners, landmarks, scores = decode(outputs, (scaled.shape[1], scaled.shape[0]), scale)
    expected = heads[f"faces_{number}"]
    assert len(scores) == len(expected) >= 10
    np.testing.assert_array_equal(scores, expected[:, 0])
    np.testing.assert_array_equal(corners.astype(int), expected[:, 1:5])
    np.testing.assert_array_equal(landmarks.reshape(-1, 10), expected[:, 5:])


@pytest.mark.parametrize(
    ("shape", "seen"), [((100, 100), (1024, 1024)), ((500, 1000), (990, 1980)), ((2000, 3000), (1024, 1536))]
)
def test_pictures_are_resized_as_the_package_does(shape: tuple[int, int], seen: tuple[int, int]) -> None:
    scaled, scale = resize(np.zeros((*shape, 3), np.uint8))
    assert scaled.shape[:2] == seen
    assert scale == pytest.approx(seen[0] / shape[0], rel=1e-3)


def test_no_anchor_over_the_threshold_is_no_face() -> None:
    outputs = [
        np.zeros((1, 1024 // stride, 1024 // stride, depth), np.float32)
        for stride in (32, 16, 8)
        for depth in (4, 8, 20)
    ]
    corners, landmarks, scores = decode(outputs, (1024, 1024), 1.0)
    assert (corners.shape, landmarks.shape, scores.shape) == ((0, 4), (0, 5, 2), (0,))


def test_boxes_that_overlap_a_better_one_by_the_limit_are_dropped() -> None:
    # 10 x 10 pixels each, counted from end to end; 4 rows of 10 in common: 40 / 160; 6 rows: 60 / 140.
    corners = np.array([[0, 0, 9, 9], [0, 6, 9, 15], [0, 4, 9, 13], [40, 0, 49, 9]], np.float32)
    assert suppress(corners, 0.4) == [0, 1, 3]
    assert suppress(corners, 0.2) == [0, 3]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> RetinaFaceResNet50:
    path = save_small(tmp_path_factory.mktemp("retinaface") / "small.onnx")
    found = open_detector(SharedSession(path, CPU, SessionOptions(arena=False)))
    assert isinstance(found, RetinaFaceResNet50)
    return found


def test_whole_pixels_and_areas_beyond_the_edges(detector: RetinaFaceResNet50, group_picture: Path) -> None:
    image = read(group_picture.read_bytes())[:200, :300]
    found = detector.detect(image)
    assert len(found) > 0
    assert found.areas is not None
    for values in (found.boxes, found.areas, found.landmarks):
        np.testing.assert_array_equal(values, np.round(values))
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, :2] + found.boxes[:, 2:] <= (299, 199)).all()
    assert (np.diff(found.scores) <= 0).all()
    framed, left, top = with_border(image)
    assert (framed.shape, left, top) == ((400, 600, 3), 150, 100)


def test_a_picture_so_narrow_that_nothing_of_it_would_be_left_holds_no_face(detector: RetinaFaceResNet50) -> None:
    for shape in ((1, 4000, 3), (4000, 1, 3), (3, 20_000, 3)):
        found = detector.detect(np.zeros(shape, np.uint8))
        assert (len(found), found.boxes.shape, found.landmarks.shape) == (0, (0, 4), (0, 5, 2))


def test_threads_get_what_one_gets(detector: RetinaFaceResNet50, group_picture: Path) -> None:
    image = read(group_picture.read_bytes())
    pictures = [image[:120, :width] for width in (100, 110)]
    alone = [detector.detect(picture) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(detector.detect, pictures * 4))
    for one, other in zip(alone * 4, together, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.landmarks, other.landmarks)


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_given_back_after_pictures_of_several_shapes(detector: RetinaFaceResNet50) -> None:
    detector.detect(np.zeros((100, 100, 3), np.uint8))
    before = resident()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(detector.detect, [np.zeros((100, 100 + 3 * wider, 3), np.uint8) for wider in range(4)]))
    # Otherwise each thread keeps about 80 MB of what its run has freed.
    assert resident() - before < 100 * 2**20


def test_its_card_names_the_family(detector: RetinaFaceResNet50) -> None:
    card: ModelCard = detector.card
    assert (card.family, card.layout, card.colour) == ("retinaface-resnet50", "NCHW", "RGB")
