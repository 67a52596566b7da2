"""The repaired default models compute what the shipped ones compute, measured here anew and not read from the card."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from convert.errors import ParityError
from convert.parity import SourceNetwork, compare_outputs
from convert.sources import Fetcher
from models.catalog import load_catalog


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The default models as their publishers ship them."""
    folder = tmp_path_factory.mktemp("wheels")
    fetcher = Fetcher(folder, folder)
    return {entry.name: fetcher.get(entry.sources[0]).data for entry in load_catalog().pack("default")}


def session(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(99).integers(0, 256, shape).astype(np.float32)


def test_sface_as_shipped_asks_for_29_tensors_and_repaired_for_one(shipped: dict[str, bytes], fetched: Path) -> None:
    as_shipped = ort.InferenceSession(shipped["sface"], providers=["CPUExecutionProvider"])
    repaired = session(fetched / "sface.onnx")
    assert len(as_shipped.get_inputs()) == 30
    assert [(node.name, node.shape) for node in repaired.get_inputs()] == [("data", ["batch", 3, 112, 112])]
    assert [node.shape for node in repaired.get_outputs()] == [["batch", 128]]


def test_sface_repaired_gives_the_vectors_of_the_shipped_file_one_by_one_and_in_a_batch(
    shipped: dict[str, bytes], fetched: Path
) -> None:
    source, repaired = SourceNetwork(shipped["sface"]), session(fetched / "sface.onnx")
    faces = pictures(5, 3, 112, 112)
    expected = np.concatenate([source.run(face[None], ["fc1"])[0] for face in faces])
    single = np.concatenate([repaired.run(None, {"data": face[None]})[0] for face in faces])
    assert compare_outputs([expected], [single]).cosine_min >= 0.99999
    assert compare_outputs([expected], repaired.run(None, {"data": faces})).cosine_min >= 0.99999


def test_nothing_is_dequantised_or_normalised_at_run_time_any_more(fetched: Path) -> None:
    for name in ("sface", "yunet", "retinaface"):
        left = {node.op_type for node in onnx.load(fetched / f"{name}.onnx").graph.node}
        assert not left & {"DequantizeLinear", "BatchNormalization", "Dropout", "Identity", "Constant"}, name


@pytest.mark.parametrize(
    ("name", "size"), [("retinaface", (320, 448)), ("retinaface", (96, 64)), ("yunet", (640, 640))]
)
def test_detectors_repaired_give_what_the_shipped_files_give(
    shipped: dict[str, bytes], fetched: Path, name: str, size: tuple[int, int]
) -> None:
    source, repaired = SourceNetwork(shipped[name]), session(fetched / f"{name}.onnx")
    picture = pictures(1, 3, *size)
    outputs = [node.name for node in repaired.get_outputs()]
    parity = compare_outputs(source.run(picture, outputs), repaired.run(outputs, {"input": picture}))
    assert parity.cosine_min >= 0.99999
    assert parity.max_abs_diff < 1e-4


def test_retinaface_takes_a_batch(fetched: Path) -> None:
    repaired = session(fetched / "retinaface.onnx")
    batch = pictures(2, 3, 96, 128)
    singly = [repaired.run(None, {"input": picture[None]}) for picture in batch]
    together = repaired.run(None, {"input": batch})
    for index, output in enumerate(together):
        np.testing.assert_allclose(output, np.concatenate([one[index] for one in singly]), atol=1e-5)


@pytest.mark.parametrize("size", [(320, 320), (640, 640), (500, 333)])
def test_opencv_loads_the_repaired_yunet_and_takes_any_size(fetched: Path, size: tuple[int, int]) -> None:
    detector = cv2.FaceDetectorYN.create(str(fetched / "yunet.onnx"), "", size)
    status, _ = detector.detect(np.zeros((size[1], size[0], 3), np.uint8))
    assert status == 1


def test_a_difference_is_found_and_said() -> None:
    ones = np.ones((2, 4), np.float32)
    tilted = ones.copy()
    tilted[1, 0] = 0.9
    parity = compare_outputs([ones], [tilted])
    assert parity.cosine_min < 0.9999
    assert parity.max_abs_diff == pytest.approx(0.1)
    with pytest.raises(ParityError, match=r"Nothing was written"):
        parity.require()
    with pytest.raises(ParityError, match="shapes"):
        compare_outputs([ones], [ones[:1]])


def test_numbers_that_are_not_numbers_are_no_parity() -> None:
    sound, broken = np.ones((2, 2)), np.array([[1, 1], [np.nan, 1]])
    for parity in (compare_outputs([sound], [broken]), compare_outputs([sound, sound], [sound, broken])):
        with pytest.raises(ParityError):
            parity.require()


def test_zeros_equal_zeros_and_nothing_else() -> None:
    zeros = np.zeros((1, 3))
    assert compare_outputs([zeros], [zeros]).cosine_min == 1
    assert compare_outputs([zeros], [np.ones((1, 3))]).cosine_min == 0
