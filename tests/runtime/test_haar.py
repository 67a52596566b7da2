"""The detector ``haar``: the boxes and eyes of DeepFace's backend ``opencv`` (benchmarks/deepface_peer.py)."""

from __future__ import annotations

import importlib.util
import json
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.builtin import HAAR
from models.errors import CardError, ModelError
from models.settings import Settings
from models.store import ModelStore
from runtime.decode import decode
from runtime.detectors import open_built_in
from runtime.detectors.haar import Haar
from runtime.engine import FaceEngine, open_engine
from runtime.faces import Detections, ImageArray
from runtime.quality import measure, portrait
from tests.runtime.test_align_deepface import CARD, pixels_as_embedding

EXPECTED = json.loads(Path(__file__).with_name("deepface_boxes.json").read_text())


@pytest.fixture(scope="module")
def haar() -> Haar:
    detector = open_built_in(HAAR)
    assert isinstance(detector, Haar)
    return detector


def as_deepface(found: Detections) -> list[list[object]]:
    """As the expected faces are written down."""
    assert found.areas is not None
    faces = []
    for area, points in zip(found.areas, found.landmarks, strict=True):
        eyes = [[int(x), int(y)] if np.isfinite(x) else None for x, y in points[:2]]
        faces.append([*(int(value) for value in area), *eyes])
    return sorted(faces)


def picture_of(package: str, inside: str) -> ImageArray:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {package}, which ships the picture, is not installed")
    return decode((Path(spec.submodule_search_locations[0]) / inside).read_bytes())


@pytest.mark.parametrize(
    ("package", "inside"), [("insightface", "data/images/t1.jpg"), ("skimage", "data/astronaut.png")]
)
def test_boxes_and_eyes_are_those_of_deepface(haar: Haar, package: str, inside: str) -> None:
    assert as_deepface(haar.detect(picture_of(package, inside))) == EXPECTED[Path(inside).name]


def test_boxes_and_eyes_are_those_of_deepface_on_all_pictures_at_hand(haar: Haar, shared: Path) -> None:
    portraits = sorted((shared / "faces/bbt").rglob("*.png"))
    found = {path.name: haar.detect(decode(path.read_bytes())) for path in portraits}
    groups = [shared / f"faces/groups/bbt{number}.jpg" for number in (2, 4, 5)]
    found |= {path.name: haar.detect(decode(path.read_bytes())) for path in groups}
    assert {name: as_deepface(one) for name, one in found.items()} == {name: EXPECTED[name] for name in found}
    (gallery,) = (shared / "galleries/deepface-0.0.96").glob("*.pkl")
    records = {Path(record["identity"]).name: record for record in pickle.loads(gallery.read_bytes())}
    assert len(records) == 40
    for name, record in records.items():
        assert found[name].boxes.tolist() == [[record[f"target_{part}"] for part in "xywh"]]


def test_largest_score_first_and_all_in_range(haar: Haar, group_picture: Path) -> None:
    scores = haar.detect(decode(group_picture.read_bytes())).scores
    assert len(scores) == 4
    assert (np.diff(scores) <= 0).all()
    assert ((scores > 0) & (scores < 1)).all()


def test_32_threads_get_what_one_gets(haar: Haar) -> None:
    image = picture_of("skimage", "data/astronaut.png")
    pictures = [image[top : top + 180, left : left + 180] for top in (0, 30) for left in (120, 140)]
    alone = [as_deepface(haar.detect(picture)) for picture in pictures]
    assert sum(map(len, alone)) >= 3
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda picture: as_deepface(haar.detect(picture)), pictures * 16))
    assert together == alone * 16


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 500), (19, 23), (240, 320)])
def test_no_face_in_a_picture_without_one(haar: Haar, shape: tuple[int, int]) -> None:
    found = haar.detect(np.full((*shape, 3), 130, np.uint8))
    assert len(found) == 0
    assert (found.boxes.shape, found.landmarks.shape) == ((0, 4), (0, 5, 2))


@pytest.fixture
def settings(models_dir: Path, tmp_path: Path) -> Iterator[Settings]:
    embedder = pixels_as_embedding(tmp_path / "corner.onnx", CARD)
    yield Settings(
        _env_file=None, models_dir=models_dir, detector="haar", embedder=str(embedder), execution_provider="cpu"
    )


def test_it_serves_an_embedder_with_the_alignment_of_deepface(settings: Settings, group_picture: Path) -> None:
    analysis = open_engine(settings).analyze(group_picture.read_bytes())
    assert analysis.embeddings.shape == (4, CARD.dimension)
    np.testing.assert_allclose(np.linalg.norm(analysis.embeddings, axis=1), 1, rtol=1e-5)


def test_it_is_refused_for_an_embedder_that_needs_five_landmarks(models_dir: Path) -> None:
    with pytest.raises(CardError, match=r"finds eyes at most.*DETECTOR=retinaface"):
        open_engine(Settings(_env_file=None, models_dir=models_dir, detector="haar", execution_provider="cpu"))


def test_it_is_no_embedder_and_has_no_file(models_dir: Path) -> None:
    store = ModelStore(models_dir)
    with pytest.raises(CardError, match="EMBEDDER needs one for embedding"):
        store.find("haar", "embedding")
    with pytest.raises(ModelError, match="built in"):
        store.resolve("haar")
    assert store.find("haar", "detection").path is None


def test_a_portrait_needs_no_landmarks(haar: Haar, engine: FaceEngine) -> None:
    image = picture_of("skimage", "data/astronaut.png")
    found, known = haar.detect(image), engine.detector.detect(image)
    crop = portrait(image, found.boxes[0], found.landmarks[0])
    same = portrait(image, known.boxes[0], known.landmarks[0])
    grey, other = (cv2.blur(cv2.cvtColor(one, cv2.COLOR_BGR2GRAY), (9, 9)).ravel() for one in (crop, same))
    assert np.corrcoef(grey, other)[0, 1] > 0.7
    assert not measure(crop, found.boxes[0], found.landmarks[0]).faults()
