"""The alignment ``deepface``, against crops that DeepFace 0.0.96 cut (benchmarks/deepface_peer.py; 0.0.103 cuts them
alike)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from models.card import METADATA_KEY, ModelCard
from models.errors import CardError
from runtime.align import align_deepface
from runtime.embed import Embedder
from runtime.faces import Detections
from runtime.session import Sessions, as_batch
from runtime.warp import cubic_warp

CARD = ModelCard(
    name="corner",
    task="embedding",
    family="embedding",
    layout="NHWC",
    colour="BGR",
    mean=(0.0, 0.0, 0.0),
    scale=(1 / 255, 1 / 255, 1 / 255),
    input_size=(24, 28),
    dimension=24 * 28 * 3,
    alignment="deepface",
    threshold=0.68,
    licence="MIT",
    origin="made in the test",
    origin_sha256="",
)


@pytest.fixture(scope="module")
def deepface() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("deepface_crops.npz")) as file:
        return dict(file)


def found(deepface: dict[str, np.ndarray]) -> Detections:
    count = len(deepface["boxes"])
    landmarks = np.full((count, 5, 2), np.nan, np.float32)
    landmarks[:, :2] = deepface["eyes"]
    return Detections(deepface["boxes"], landmarks, np.ones(count, np.float32))


def pixels_as_embedding(path: Path, card: ModelCard) -> Path:
    """A network whose embedding is its input."""
    shape = ["n", 28, 24, 3]
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["y"])],
        "flatten",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", card.dimension])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {METADATA_KEY: card.to_json()})
    onnx.save(model, str(path))
    return path


def test_crops_are_those_of_deepface(deepface: dict[str, np.ndarray]) -> None:
    faces = found(deepface)
    crops = align_deepface(deepface["picture"], faces.boxes, faces.landmarks, (24, 28))
    assert np.abs(crops / 255 - deepface["crops"]).max() < 1e-6


def test_crops_are_those_of_deepface_on_opencv_5(deepface: dict[str, np.ndarray]) -> None:
    with np.load(Path(__file__).with_name("deepface_crops_opencv5.npz")) as file:
        expected = file["crops"]
    faces = found(deepface)
    crops = align_deepface(deepface["picture"], faces.boxes, faces.landmarks, (24, 28), exact=True) / 255
    assert np.abs(crops - expected).max() < 1e-6
    assert np.abs(deepface["crops"] - expected).mean() > 1e-4


def test_an_exact_warp_of_nothing_and_of_far_away_is_black() -> None:
    matrix = np.array([[1.0, 0.0, 500.0], [0.0, 1.0, 500.0]])
    picture = np.full((20, 20, 3), 255, np.uint8)
    assert not cubic_warp(picture, matrix, (0, 0, 20, 20)).any()
    assert (cubic_warp(picture, matrix, (500, 500, 20, 20)) == picture).all()


def test_an_exact_warp_sees_black_around_a_picture() -> None:
    picture = np.random.default_rng(5).integers(0, 2, (20, 24, 3)).astype(np.uint8) * 255
    framed = np.pad(picture, ((8, 8), (8, 8), (0, 0)))
    matrix, moved = np.array([[1, 0, 0.25], [0, 1, -0.75]]), np.array([[1, 0, 8.25], [0, 1, 7.25]])
    warped = cubic_warp(framed, matrix, (0, 0, 40, 36))
    np.testing.assert_array_equal(cubic_warp(picture, moved, (0, 0, 40, 36)), warped)
    assert warped[8:-8, 8:-8].any()


def test_grey_levels_are_not_rounded(deepface: dict[str, np.ndarray]) -> None:
    faces = found(deepface)
    crops = align_deepface(deepface["picture"], faces.boxes, faces.landmarks, (24, 28))
    assert np.abs(crops - np.rint(crops)).max() > 0.3


@pytest.mark.parametrize("box", [(3, 3, 0, 9), (3, 3, 9, 0.5), (3, 3, -4, 9)])
def test_a_box_without_a_pixel_gives_a_black_crop(box: tuple[float, ...]) -> None:
    landmarks = np.full((1, 5, 2), 5, np.float32)
    picture = np.full((20, 20, 3), 255, np.uint8)
    assert not align_deepface(picture, np.array([box], np.float32), landmarks).any()


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (2, 2, 900, 1), (5, 1, 1, 900)])
def test_thin_boxes_are_no_trouble(box: tuple[float, ...]) -> None:
    landmarks = np.array([[[2, 3], [5, 6], [4, 4], [3, 5], [5, 5]]], np.float32)
    picture = np.full((20, 20, 3), 255, np.uint8)
    assert align_deepface(picture, np.array([box], np.float32), landmarks).shape == (1, 112, 112, 3)


def test_an_embedder_takes_the_crops_as_its_card_says(deepface: dict[str, np.ndarray], tmp_path: Path) -> None:
    embedder = Embedder(Sessions().open(pixels_as_embedding(tmp_path / "corner.onnx", CARD)))
    crops = embedder.align(deepface["picture"], found(deepface))
    embeddings = embedder.embed(crops)
    expected = deepface["crops"].reshape(len(crops), -1)
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    assert np.abs(embeddings - expected).max() < 1e-6


def test_preparing_a_batch_leaves_the_crops_alone() -> None:
    card = replace(CARD, mean=(127.5, 127.5, 127.5))
    crops = np.full((2, 28, 24, 3), 100, np.float32)
    assert as_batch(crops, card).max() < 0
    assert (crops == 100).all()


def test_an_embedder_without_alignment_is_refused(tmp_path: Path) -> None:
    path = pixels_as_embedding(tmp_path / "none.onnx", replace(CARD, alignment="none"))
    with pytest.raises(CardError, match="names no alignment"):
        Embedder(Sessions().open(path))
