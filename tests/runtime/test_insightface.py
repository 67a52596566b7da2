"""InsightFace's detectors over the shared session: the boxes and landmarks of the package's own pipeline."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from convert.__main__ import main
from models.settings import Settings
from runtime.detectors import open_detector
from runtime.detectors.insightface import InsightFaceDetector
from runtime.engine import open_engine
from runtime.faces import Detections, ImageArray
from runtime.session import SharedSession

app = pytest.importorskip("insightface.app", exc_type=ImportError)
NETWORKS = ("scrfd_500m_kps", "scrfd_2.5g_kps")
PIXELS = 1e-3


@pytest.fixture(scope="module", params=NETWORKS)
def pair(
    request: pytest.FixtureRequest, shared: Path, models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[InsightFaceDetector, object]:
    """Ours over the adopted file, and FaceAnalysis over a pack with the original."""
    source = shared / "models" / f"{request.param}.onnx"
    folder = tmp_path_factory.mktemp("pack")
    adopted = folder / f"{request.param}.onnx"
    command = ["adopt", str(source), "--preset", "insightface-scrfd", "--output", str(adopted)]
    assert main([*command, "--models-dir", str(models_dir)]) == 0
    pack = folder / "models" / "pack"
    pack.mkdir(parents=True)
    shutil.copy(source, pack)
    analysis = app.FaceAnalysis(name="pack", root=str(folder), providers=["CPUExecutionProvider"])
    analysis.prepare(ctx_id=-1)
    detector = open_detector(SharedSession(adopted))
    assert isinstance(detector, InsightFaceDetector)
    return detector, analysis


@pytest.fixture(scope="module")
def pictures(shared: Path, group_picture: Path) -> list[ImageArray]:
    paths = [*sorted((shared / "faces").rglob("*.png")), *sorted((shared / "faces").rglob("*.jpg")), group_picture]
    return [np.asarray(cv2.imread(str(path)), np.uint8) for path in paths]


def test_boxes_and_landmarks_equal_those_of_face_analysis(pair: tuple, pictures: list[ImageArray]) -> None:
    detector, analysis = pair
    total = 0
    for picture in pictures:
        ours = detector.detect(picture)
        theirs = sorted(analysis.get(picture), key=lambda face: -face.det_score)
        assert len(ours) == len(theirs)
        total += len(ours)
        for index, face in enumerate(theirs):
            corners = np.concatenate([ours.boxes[index, :2], ours.boxes[index, :2] + ours.boxes[index, 2:]])
            np.testing.assert_allclose(corners, face.bbox, atol=PIXELS)
            np.testing.assert_allclose(ours.landmarks[index], face.kps, atol=PIXELS)
            assert abs(ours.scores[index] - face.det_score) < 1e-5
    # Networks of a fixed size of 640 pixels find no face in the tight crops of bbt; the others hold 28.
    assert total >= 28


def test_a_picture_so_narrow_that_nothing_of_it_would_be_left_holds_no_face(pair: tuple) -> None:
    detector, _ = pair
    for shape in ((1, 2000, 3), (2000, 1, 3), (2, 255, 3), (1, 1, 3)):
        assert len(detector.detect(np.zeros(shape, np.uint8))) == 0


def test_32_threads_get_what_one_gets(pair: tuple, pictures: list[ImageArray]) -> None:
    detector, _ = pair
    some = pictures[::4]
    alone = [detector.detect(picture) for picture in some]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(detector.detect, some * 4))
    for one, other in zip(alone * 4, together, strict=True):
        assert_same(one, other)


def assert_same(one: Detections, other: Detections) -> None:
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_array_equal(one.landmarks, other.landmarks)


def test_the_engine_serves_with_it_and_the_package_is_loaded_only_then(
    pair: tuple, models_dir: Path, group_picture: Path
) -> None:
    detector, _ = pair
    settings = Settings(
        _env_file=None, models_dir=models_dir, detector=str(detector.session.path), execution_provider="cpu"
    )
    assert len(open_engine(settings).analyze(group_picture.read_bytes()).detections) == 6
    code = "import sys, runtime.engine, server.app; sys.exit('insightface' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
