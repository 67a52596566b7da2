"""Large JPEG files are decoded at a reduced size, and what is found in them stays what it was."""

from __future__ import annotations

import importlib.util
import io
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from matchers.enrol import Candidate, examine
from matchers.thumbnails import small_picture
from models.settings import Settings
from runtime.align import crop_scales
from runtime.decode import Limits, decode, open_picture
from runtime.detectors import Detector
from runtime.detectors.haar import Haar
from runtime.detectors.insightface import InsightFaceDetector
from runtime.detectors.retinaface_resnet50 import RetinaFaceResNet50
from runtime.engine import FaceEngine, open_engine
from runtime.errors import ImageError
from runtime.faces import Analysis, Detections, FloatArray, ImageArray
from runtime.quality import measure, portrait
from runtime.view import View, factor_to_cut, factor_to_detect
from tests.runtime.test_align_deepface import CARD, pixels_as_embedding

Array = np.ndarray

FACTORS = [2, 4, 8]
CANVAS = 640


def jpeg(image: ImageArray, quality: int = 92) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def enlarged(image: ImageArray, longer: int) -> ImageArray:
    by = longer / max(image.shape[:2])
    return np.asarray(cv2.resize(image, None, fx=by, fy=by, interpolation=cv2.INTER_CUBIC), np.uint8)


def in_whole_blocks(image: ImageArray) -> ImageArray:
    """Without the rows and columns that make no block of 8 x 8."""
    return image[: image.shape[0] // 8 * 8, : image.shape[1] // 8 * 8]


def saved(image: ImageArray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., ::-1]).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def waves() -> ImageArray:
    """(203, 149, 3) uint8: a pixel to the right or down changes it by up to 10 grey levels; sides are odd."""
    y, x = np.mgrid[0:203, 0:149]
    parts = [np.sin(x / 10), np.sin(y / 10), np.sin((x + y) / 14)]
    return np.round(np.stack(parts, axis=-1) * 100 + 128).astype(np.uint8)


@pytest.fixture(scope="module")
def six_people(group_picture: Path) -> ImageArray:
    return decode(group_picture.read_bytes())


@pytest.fixture(scope="module")
def one_person() -> ImageArray:
    """The astronaut of scikit-image beside a wall, 12 megapixels."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    astronaut = decode((Path(spec.submodule_search_locations[0]) / "data" / "astronaut.png").read_bytes())
    image = np.full((2880, 4160, 3), 128, np.uint8)
    image[:, 640:3520] = enlarged(astronaut, 2880)
    return image


def off(view: View, full: ImageArray, shift: float) -> float:
    """Mean difference of the view to the full picture, in grey levels, where the view says that its pixels lie.

    Args:
        shift: pixels of the full picture by which to look beside it.
    """
    rows, columns = view.pixels.shape[:2]
    x = (np.arange(columns, dtype=np.float32) + 0.5) * view.factor - 0.5 - view.left + shift
    y = (np.arange(rows, dtype=np.float32) + 0.5) * view.factor - 0.5 - view.top + shift
    averaged = cv2.blur(full, (view.factor + 1, view.factor + 1))
    there = cv2.remap(averaged, np.tile(x, (rows, 1)), np.tile(y[:, None], (1, columns)), cv2.INTER_LINEAR)
    inner = np.s_[2:-2, 2:-2]
    return float(np.abs(there[inner].astype(int) - view.pixels[inner]).mean())


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_picture_lies_on_the_full_one_however_it_is_turned(
    waves: ImageArray, orientation: int, factor: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(waves, exif=exif)
    full, view = decode(data), open_picture(data).view(factor)
    assert (view.height, view.width) == full.shape[:2]
    assert view.factor == factor
    assert view.pixels.shape[:2] == tuple(-(-side // factor) for side in full.shape[:2])
    here = off(view, full, 0)
    assert here < 2
    assert here < min(off(view, full, 1), off(view, full, -1)) / 2


def test_a_picture_knows_its_upright_size_before_it_is_decoded(waves: ImageArray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = open_picture(saved(waves, exif=exif))
    assert (file.width, file.height) == (203, 149)
    assert file.view().pixels.shape == (149, 203, 3)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_files_are_reduced_too(waves: ImageArray, mode: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(waves[..., ::-1]).convert(mode).save(buffer, "JPEG", quality=95)
    file = open_picture(buffer.getvalue())
    assert file.may_shrink
    view = file.view(4)
    assert view.factor == 4
    assert off(view, file.view().pixels, 0) < 2


def test_progressive_files_and_other_formats_are_not_reduced(waves: ImageArray) -> None:
    """All coefficients of a progressive file are read before the first pixel, so that little is saved."""
    assert open_picture(saved(waves)).may_shrink
    assert not open_picture(saved(waves, progressive=True)).may_shrink
    for suffix in (".png", ".webp", ".bmp", ".tiff"):
        file = open_picture(cv2.imencode(suffix, waves)[1].tobytes())
        assert not file.may_shrink


@given(st.data())
def test_a_damaged_file_gets_the_answer_that_it_gets_in_full(data: st.DataObject) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (30, 45, 3), np.uint8)
    raw = bytearray(jpeg(cv2.GaussianBlur(noise, (0, 0), 1)))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        file = open_picture(bytes(raw), Limits(max_pixels=100_000))
    except ImageError:
        assume(False)
    codes = set()
    for factor in (1, *FACTORS):
        try:
            view = file.view(factor)
        except ImageError as error:
            codes.add((error.code, str(error)))
        else:
            codes.add(("", f"{view.width} x {view.height}"))
    assert len(codes) == 1


@given(
    st.sampled_from([2, 4, 8]),
    st.integers(0, 7),
    st.integers(0, 7),
    st.lists(st.floats(0, 4000, width=32), min_size=10, max_size=10),
)
def test_landmarks_lie_at_the_same_place_of_the_pixels(factor: int, left: int, top: int, values: list[float]) -> None:
    points = np.asarray(values, np.float32).reshape(1, 5, 2)
    view = View(np.zeros((1, 1, 3), np.uint8), 4000, 4000, factor, left, top)
    found = Detections(np.array([[1, 2, 3, 4]], np.float32), points, np.ones(1, np.float32))
    inside = view.inside(found).landmarks
    np.testing.assert_allclose((inside + 0.5) * factor - 0.5 - (left, top), points, atol=2e-3)


def test_boxes_are_cut_at_the_edges_of_the_full_picture() -> None:
    """The last pixel of the reduced picture reaches beyond."""
    view = View(np.zeros((3, 3, 3), np.uint8), 10, 9, 4, left=2, top=0)
    found = Detections(np.array([[0, 0, 3, 3]], np.float32), np.ones((1, 5, 2), np.float32), np.ones(1, np.float32))
    full = view.in_full(found)
    assert full.boxes.tolist() == [[0, 0, 10, 9]]
    assert full.landmarks[0, 0].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1280, 886, 1),
        (1382, 1868, 1),
        (2304, 1728, 1),
        (2560, 1772, 2),
        (4160, 2880, 4),
        (3024, 4032, 4),
        (8064, 6048, 8),
    ],
)
def test_the_detector_sees_what_it_saw(engine: FaceEngine, width: int, height: int, expected: int) -> None:
    scale = engine.detector.scale(width, height)
    assert scale is not None
    factor = factor_to_detect(width, height, scale)
    assert factor == expected
    assert factor == 1 or scale * factor < 0.7, "the reduced picture is clearly larger than the canvas"


def test_the_smallest_face_decides_at_which_size_crops_are_cut(engine: FaceEngine, six_people: ImageArray) -> None:
    points = engine.detector.detect(six_people).landmarks
    for by, expected in ((0.9, 1), (2.1, 1), (2.4, 2), (9.0, 8)):
        scaled = points * np.float32(by * crop_scales(points).max())
        assert factor_to_cut(scaled, 8) == expected
        small = np.concatenate([scaled, scaled[:1] / 20])
        assert factor_to_cut(small, 8) == 1
    assert factor_to_cut(np.empty((0, 5, 2), np.float32), 4) == 4


def compared(engine: FaceEngine, data: bytes) -> tuple[Analysis, Analysis]:
    """The analysis of a file and that of the full picture, its faces in the order of the former."""
    reduced, full = engine.analyze(data), engine.embed_image(decode(data))
    assert (reduced.width, reduced.height) == (full.width, full.height)
    assert len(reduced.detections) == len(full.detections)
    centres = [found.landmarks.mean(axis=1) for found in (reduced.detections, full.detections)]
    partners = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2).argmin(axis=1)
    assert sorted(partners) == list(range(len(partners)))
    return reduced, Analysis(
        full.width, full.height, full.detections.take(partners), full.embeddings[partners], full.timing_ms
    )


def cosines(one: Analysis, other: Analysis) -> FloatArray:
    return np.asarray((one.embeddings * other.embeddings).sum(axis=1))


def moved(one: Analysis, other: Analysis) -> Array:
    """How far each face's landmarks lie from those of another analysis, means in pixels of the detector's canvas."""
    scale = CANVAS / max(one.width, one.height)
    return np.asarray(np.abs(one.detections.landmarks - other.detections.landmarks).mean(axis=(1, 2)) * scale)


@pytest.fixture(scope="module")
def groups(shared: Path, six_people: ImageArray) -> list[ImageArray]:
    pictures = sorted((shared / "faces" / "groups").glob("*.jpg"))
    return [six_people, *(decode(path.read_bytes()) for path in pictures)]


@pytest.mark.parametrize(("longer", "factor"), [(3600, 2), (4160, 4)])
def test_groups_on_large_photos_are_seen_as_in_full(
    engine: FaceEngine, groups: list[ImageArray], longer: int, factor: int
) -> None:
    for group in groups:
        reduced, full = compared(engine, jpeg(in_whole_blocks(enlarged(group, longer))))
        assert reduced.factors[0] == factor
        assert cosines(reduced, full).min() > 0.99
        # A face that two anchors see equally well may change from one to the other.
        assert moved(reduced, full).max() < 0.5
        sides = np.abs(reduced.detections.boxes - full.detections.boxes).max(axis=1) * CANVAS / longer
        assert np.median(sides) < 0.2
        assert sides.max() < 2
        assert np.abs(reduced.detections.scores - full.detections.scores).max() < 0.01


def test_groups_on_photos_of_any_size_come_as_near_to_the_original_as_in_full(
    engine: FaceEngine, groups: list[ImageArray]
) -> None:
    """Of a full picture the detector is shown no rows and columns that fill no block, which moves what it finds."""
    likeness: list[list[FloatArray]] = [[], []]
    for group in groups:
        original = engine.embed_image(group).embeddings
        both = compared(engine, jpeg(enlarged(group, 4001)))
        assert moved(*both).max() < 1.5
        for rows, one in zip(likeness, both, strict=True):
            rows.append((one.embeddings @ original.T).max(axis=1))
    reduced, full = (np.concatenate(rows) for rows in likeness)
    assert reduced.min() > full.min() - 0.005
    assert np.median(reduced) > np.median(full) - 0.001


def test_leave_one_out_on_large_photos_names_whom_it_names_in_full(engine: FaceEngine, shared: Path) -> None:
    paths = sorted((shared / "faces" / "bbt").glob("*/*.png"))
    people = np.array([path.parent.name for path in paths])
    originals = [engine.embed_image(decode(path.read_bytes())).embeddings for path in paths]
    assert [len(rows) for rows in originals] == [1] * 40
    gallery = np.concatenate(originals)
    for number, path in enumerate(paths):
        reduced, full = compared(engine, jpeg(enlarged(decode(path.read_bytes()), 2880), 90))
        assert reduced.factors == (2,)
        others = np.arange(len(paths)) != number
        named = [people[others][(gallery[others] @ one.embeddings[0]).argmax()] for one in (reduced, full)]
        assert named == [people[number]] * 2, path.name


def test_one_large_face_is_decoded_once(engine: FaceEngine, one_person: ImageArray) -> None:
    reduced, full = compared(engine, jpeg(one_person))
    assert reduced.factors == (4,)
    assert len(reduced.detections) == 1
    assert cosines(reduced, full).min() > 0.99
    assert list(reduced.timing_ms) == ["decode", "detect", "align", "embed"]


def test_on_noisy_photos_crops_come_nearer_to_the_picture_without_noise(
    engine: FaceEngine, six_people: ImageArray
) -> None:
    """Warping down from the full picture picks single pixels and their noise; a reduced one is averaged."""
    large = enlarged(six_people, 4160)
    noise = np.random.default_rng(0).normal(0, 8, large.shape[:2])[..., None]
    reduced, full = compared(engine, jpeg(np.clip(large + noise, 0, 255).astype(np.uint8)))
    likeness = [one.embeddings @ engine.embed_image(six_people).embeddings.T for one in (reduced, full)]
    assert (likeness[0].max(axis=1) > likeness[1].max(axis=1)).all()


@pytest.fixture(scope="module")
def large_and_small(engine: FaceEngine, six_people: ImageArray) -> ImageArray:
    """4160 x 2880: a face of 1000 pixels, and one too small for its crop in half the picture."""
    boxes = engine.detector.detect(six_people).boxes
    image = np.full((2880, 4160, 3), 110, np.uint8)
    for index, by, at in ((0, 10.0, (100, 100)), (1, 1.3, (1200, 3300))):
        x, y, width, height = boxes[index].astype(int)
        face = six_people[y - height // 3 : y + height + height // 3, x - width // 3 : x + width + width // 3]
        face = np.asarray(cv2.resize(face, None, fx=by, fy=by, interpolation=cv2.INTER_CUBIC), np.uint8)
        image[at[0] : at[0] + face.shape[0], at[1] : at[1] + face.shape[1]] = face
    return image


def test_beside_a_large_face_a_small_one_is_cut_from_the_full_picture(
    engine: FaceEngine, large_and_small: ImageArray
) -> None:
    reduced, full = compared(engine, jpeg(large_and_small))
    assert reduced.factors == (4, 1)
    widths = reduced.detections.boxes[:, 2]
    assert len(widths) == 2
    assert widths.max() > 6 * widths.min()
    assert cosines(reduced, full).min() > 0.998


def test_the_full_picture_is_gone_while_the_embedder_runs(
    engine: FaceEngine, large_and_small: ImageArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = jpeg(large_and_small)
    held = []
    embed = engine.embedder.embed
    monkeypatch.setattr(
        engine.embedder, "embed", lambda crops: held.append(tracemalloc.get_traced_memory()[0]) or embed(crops)
    )
    tracemalloc.start()
    try:
        assert engine.analyze(data).factors == (4, 1)
        assert tracemalloc.get_traced_memory()[1] > large_and_small.nbytes
    finally:
        tracemalloc.stop()
    assert held[0] < large_and_small.nbytes / 10


def test_small_pictures_go_their_old_way(engine: FaceEngine, group_picture: Path) -> None:
    data = group_picture.read_bytes()
    analysis, plain = engine.analyze(data), engine.embed_image(decode(data))
    assert analysis.factors == (1,)
    assert np.array_equal(analysis.embeddings, plain.embeddings)
    assert np.array_equal(analysis.detections.boxes, plain.detections.boxes)
    assert np.array_equal(analysis.detections.landmarks, plain.detections.landmarks)


def test_the_alignment_of_deepface_has_every_pixel(models_dir: Path, tmp_path: Path, one_person: ImageArray) -> None:
    embedder = str(pixels_as_embedding(tmp_path / "corner.onnx", CARD))
    settings = Settings(_env_file=None, models_dir=models_dir, embedder=embedder, execution_provider="cpu")
    reduced, full = compared(open_engine(settings), jpeg(one_person))
    assert reduced.factors == (1,)
    assert np.array_equal(reduced.embeddings, full.embeddings)
    assert np.array_equal(reduced.detections.boxes, full.detections.boxes)


@pytest.mark.parametrize("kind", [Haar, InsightFaceDetector, RetinaFaceResNet50])
def test_detectors_that_give_what_a_peer_gives_have_every_pixel(kind: type[Detector]) -> None:
    detector = kind.__new__(kind)
    assert detector.scale(4160, 2880) is None


def test_yunet_sees_reduced_pictures_too(models_dir: Path, six_people: ImageArray) -> None:
    settings = Settings(_env_file=None, models_dir=models_dir, detector="yunet", execution_provider="cpu")
    reduced, full = compared(open_engine(settings), jpeg(enlarged(six_people, 4160)))
    assert reduced.factors[0] == 4
    assert len(reduced.detections) == 6
    assert moved(reduced, full).max() < 1
    assert cosines(reduced, full).min() > 0.99


def test_enrolling_a_large_photo_keeps_the_embedding_by_which_it_is_searched(
    engine: FaceEngine, one_person: ImageArray
) -> None:
    data = jpeg(one_person)
    candidate = examine(engine, "one.jpg", data)
    assert isinstance(candidate, Candidate)
    assert np.array_equal(candidate.embedding, engine.analyze(data).embeddings[0])
    full = decode(data)
    found = engine.detector.detect(full)
    thumbnails = [
        cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR).astype(int)
        for one in (candidate.thumbnail, small_picture(full, found.boxes[0]))
    ]
    # A box that moves by a pixel of the canvas moves the thumbnail by half a pixel.
    assert np.abs(thumbnails[0] - thumbnails[1]).mean() < 8
    crop = portrait(full, found.boxes[0], found.landmarks[0])
    expected = measure(crop, found.boxes[0], found.landmarks[0])
    assert candidate.quality.side == pytest.approx(expected.side, rel=0.02)
    assert candidate.quality.turn == pytest.approx(expected.turn, abs=0.02)
    assert candidate.quality.roll == pytest.approx(expected.roll, abs=0.5)


@pytest.mark.parametrize("sigma", [8, 16])
def test_blur_on_a_large_photo_is_judged_as_in_full(engine: FaceEngine, one_person: ImageArray, sigma: int) -> None:
    data = jpeg(np.asarray(cv2.GaussianBlur(one_person, (0, 0), sigma), np.uint8))
    candidate = examine(engine, "one.jpg", data, allow={"face_blurred"})
    assert isinstance(candidate, Candidate)
    full = decode(data)
    found = engine.detector.detect(full)
    crop = portrait(full, found.boxes[0], found.landmarks[0])
    expected = measure(crop, found.boxes[0], found.landmarks[0])
    assert candidate.quality.sharpness == pytest.approx(expected.sharpness, rel=0.15)
