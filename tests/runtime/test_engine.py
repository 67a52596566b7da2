from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.decode import decode
from runtime.detectors import open_detector
from runtime.detectors.canvas import choose_canvas, letterbox
from runtime.detectors.retinaface import CANVASES, priors
from runtime.embed import BATCH
from runtime.engine import FaceEngine
from runtime.session import Sessions, Tensor


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / float(np.prod(a[2:]) + np.prod(b[2:]) - shared)


@pytest.fixture(scope="module")
def six_people(group_picture: Path) -> np.ndarray:
    return decode(group_picture.read_bytes())


@pytest.mark.parametrize("name", ["retinaface", "yunet"])
def test_all_six_people_are_found(models_dir: Path, six_people: np.ndarray, name: str) -> None:
    found = open_detector(Sessions().open(models_dir / f"{name}.onnx")).detect(six_people)
    assert len(found) == 6
    assert (np.diff(found.scores) <= 0).all()
    for box, points in zip(found.boxes, found.landmarks, strict=True):
        assert (points >= box[:2]).all()
        assert (points <= box[:2] + box[2:]).all()
        left_eye, right_eye, nose, left_mouth, right_mouth = points
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_two_detectors_agree(models_dir: Path, six_people: np.ndarray) -> None:
    sessions = Sessions()
    first, second = (
        open_detector(sessions.open(models_dir / f"{name}.onnx")).detect(six_people) for name in ("retinaface", "yunet")
    )
    for box in first.boxes:
        assert max(overlap(box, other) for other in second.boxes) > 0.6


def test_yunet_reads_its_outputs_as_opencv_does(models_dir: Path, six_people: np.ndarray) -> None:
    path = models_dir / "yunet.onnx"
    small = np.asarray(cv2.resize(six_people, (640, 443)))
    canvas = np.zeros((640, 640, 3), np.uint8)
    canvas[:443] = small
    peer = cv2.FaceDetectorYN.create(str(path), "", (640, 640), 0.7, 0.3)
    expected = np.asarray(peer.detect(canvas)[1])
    found = open_detector(Sessions().open(path)).detect(small)
    assert len(found) == len(expected)
    order = np.argsort(-expected[:, 14])
    assert np.abs(found.landmarks.reshape(-1, 10) - expected[order][:, 4:14]).max() < 0.5
    assert np.abs(found.scores - expected[order][:, 14]).max() < 1e-3


def test_a_picture_without_faces_gives_empty_arrays(engine: FaceEngine) -> None:
    analysis = engine.embed_image(np.full((300, 400, 3), 90, np.uint8))
    assert len(analysis.detections) == 0
    assert analysis.embeddings.shape == (0, engine.embedder_card.dimension)
    assert set(analysis.timing_ms) == {"detect", "align", "embed"}


@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (20_000, 1), (3, 5), (5000, 700)])
def test_odd_shapes_are_no_trouble(engine: FaceEngine, shape: tuple[int, int]) -> None:
    assert len(engine.embed_image(np.zeros((*shape, 3), np.uint8)).detections) == 0


def test_embeddings_are_unit_rows_and_do_not_depend_on_the_batch(engine: FaceEngine, six_people: np.ndarray) -> None:
    crops = engine.embedder.align(six_people, engine.detector.detect(six_people))
    together = engine.embedder.embed(crops)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = np.concatenate([engine.embedder.embed(crop[None]) for crop in crops])
    assert np.abs(together - alone).max() < 1e-5
    many = engine.embedder.embed(np.tile(crops, (12, 1, 1, 1)))
    assert many.shape == (72, engine.embedder_card.dimension)
    assert np.abs(many[-6:] - alone).max() < 1e-5


def test_only_a_few_batch_sizes_and_canvases_reach_the_session(
    engine: FaceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    session = engine.embedder.session
    run, run_each = session.run, session.run_each

    def note(feeds: Sequence[Mapping[str, Tensor]]) -> None:
        seen.update(len(next(iter(feed.values()))) for feed in feeds)

    monkeypatch.setattr(session, "run", lambda feeds, outputs: (note([feeds]), run(feeds, outputs))[1])
    monkeypatch.setattr(session, "run_each", lambda feeds, outputs: (note(feeds), run_each(feeds, outputs))[1])
    for count in (1, 2, 3, 5, 8, 9, 16, 17, 33):
        engine.embedder.embed(np.zeros((count, 112, 112, 3), np.uint8))
    assert {1} <= seen <= set(range(1, BATCH + 1))


def test_threads_get_the_answers_that_one_thread_gets(engine: FaceEngine, six_people: np.ndarray) -> None:
    alone = engine.embed_image(six_people)
    with ThreadPoolExecutor(8) as pool:
        for analysis in pool.map(lambda _: engine.embed_image(six_people), range(16)):
            assert np.array_equal(analysis.embeddings, alone.embeddings)
            assert np.array_equal(analysis.detections.boxes, alone.detections.boxes)


def test_faces_are_found_where_they_lie_whatever_the_size(engine: FaceEngine, six_people: np.ndarray) -> None:
    expected = engine.detector.detect(six_people)
    for factor in (0.5, 2.0):
        scaled = np.asarray(cv2.resize(six_people, None, fx=factor, fy=factor))
        found = engine.detector.detect(scaled)
        assert len(found) == 6
        for box in found.boxes / factor:
            assert max(overlap(box, other) for other in expected.boxes) > 0.8


def test_the_canvas_shows_the_picture_largest() -> None:
    expected = {
        (1280, 886): (640, 480),
        (886, 1280): (480, 640),
        (1000, 1000): (640, 640),
        (160, 90): (320, 320),
        (161, 90): (640, 480),
        (240, 260): (480, 640),
        (300, 300): (640, 640),
    }
    for size, canvas in expected.items():
        assert choose_canvas(*size, CANVASES, 2.0) == canvas


def test_letterboxing_keeps_the_shape_and_pads_the_rest() -> None:
    canvas = letterbox(np.full((100, 300, 3), 200, np.uint8), (320, 320), max_scale=2.0)
    assert canvas.scale == pytest.approx(320 / 300)
    assert (canvas.pixels[:107] == 200).all()
    assert (canvas.pixels[107:] == 0).all()


@pytest.mark.parametrize("width", [2000, 3840])
def test_shrinking_by_whole_blocks_shows_the_detector_what_averaging_every_area_shows(
    engine: FaceEngine, six_people: np.ndarray, width: int
) -> None:
    factor = width / six_people.shape[1]
    large = np.asarray(cv2.resize(six_people, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))
    scale = 640 / width
    size = (640, round(large.shape[0] * scale))
    averaged = engine.embed_image(np.asarray(cv2.resize(large, size, interpolation=cv2.INTER_AREA)))
    found = engine.embed_image(large)
    assert len(found.detections) == len(averaged.detections) == 6
    likeness = found.embeddings @ averaged.embeddings.T
    partners = likeness.argmax(axis=1)
    assert sorted(partners) == list(range(6))
    moved = np.abs(found.detections.landmarks * scale - averaged.detections.landmarks[partners])
    # A face that two anchors see equally well may change from one to the other.
    assert moved.mean() < 0.4
    assert np.median(moved) < 0.2
    assert np.abs(found.detections.scores - averaged.detections.scores[partners]).max() < 0.01


@pytest.mark.parametrize("size", CANVASES)
def test_priors_fit_the_network_outputs(models_dir: Path, size: tuple[int, int]) -> None:
    session = Sessions().open(models_dir / "retinaface.onnx")
    outputs = session.run({session.inputs[0]: np.zeros((1, 3, size[1], size[0]), np.float32)}, ("loc",))
    assert outputs[0].shape == (1, len(priors(size)), 4)
