"""A folder of an InsightFace pack as DETECTOR and EMBEDDER: what ``insightface.app.FaceAnalysis`` makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.card import METADATA_KEY
from models.errors import ModelError, PresetError
from models.settings import Settings
from models.store import ModelStore
from models.verify import verify_found
from runtime.decode import decode
from runtime.engine import open_engine
from tests.packs import DIMENSION, make_pack, save


@pytest.fixture(scope="module")
def pack(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("insightface") / "models" / "buffalo_l"
    return make_pack(folder, shared / "models" / "scrfd_2.5g_kps.onnx")


def test_the_folder_serves_as_it_is(pack: Path, models_dir: Path, group_picture: Path) -> None:
    app = pytest.importorskip("insightface.app", exc_type=ImportError)
    before = {path.name: path.stat().st_mtime_ns for path in pack.iterdir()}
    settings = Settings(
        _env_file=None, models_dir=models_dir, detector=str(pack), embedder=str(pack), execution_provider="cpu"
    )
    engine = open_engine(settings)
    analysis = engine.analyze(group_picture.read_bytes())
    theirs = app.FaceAnalysis(
        name="buffalo_l",
        root=str(pack.parent.parent),
        allowed_modules=["detection", "recognition"],
        providers=["CPUExecutionProvider"],
    )
    theirs.prepare(ctx_id=-1)
    faces = sorted(theirs.get(decode(group_picture.read_bytes())), key=lambda face: -face.det_score)
    assert len(faces) == len(analysis.detections) == 6
    for index, face in enumerate(faces):
        np.testing.assert_allclose(analysis.detections.landmarks[index], face.kps, atol=1e-3)
        assert float(analysis.embeddings[index] @ face.normed_embedding) > 0.9999
    assert engine.embedder_card.name == "buffalo_l-w600k_r50"
    assert engine.embedder_card.space.startswith("buffalo_l-w600k_r50-")
    assert {path.name: path.stat().st_mtime_ns for path in pack.iterdir()} == before


def test_roles_are_told_apart_as_insightface_does(pack: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    detector, embedder = store.find(str(pack), "detection"), store.find(str(pack), "embedding")
    assert (detector.path, detector.card.family) == (pack / "det_10g.onnx", "scrfd")
    assert (embedder.path, embedder.card.dimension) == (pack / "w600k_r50.onnx", DIMENSION)
    assert METADATA_KEY.encode() not in (pack / "w600k_r50.onnx").read_bytes()
    assert verify_found(detector) == verify_found(embedder) == []


def test_the_folder_may_lie_in_the_working_directory(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pack.parent)
    assert ModelStore(tmp_path).find("buffalo_l", "detection").path == Path("buffalo_l/det_10g.onnx")
    (tmp_path / "buffalo_l.onnx").write_bytes((pack / "w600k_r50.onnx").read_bytes())
    with pytest.raises(ModelError, match="no model card"):
        ModelStore(tmp_path).find("buffalo_l", "detection")


def test_a_folder_without_the_network_says_what_it_holds(tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    folder.mkdir()
    with pytest.raises(ModelError, match=r"it holds no \.onnx file"):
        ModelStore(tmp_path).find(str(folder), "embedding")
    save(folder / "w600k_r50.onnx")
    with pytest.raises(ModelError, match=r"no network for detection; it holds w600k_r50.onnx \(embedding\)"):
        ModelStore(tmp_path).find(str(folder), "detection")
    (folder / "a.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"a.onnx cannot be read"):
        ModelStore(tmp_path).find(str(folder), "detection")


def test_a_network_that_takes_one_face_at_a_time_has_to_be_adopted(tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    folder.mkdir()
    save(folder / "glintr100.onnx", batch=1)
    with pytest.raises(PresetError, match=r"batch is fixed at 1.*convert adopt .*glintr100.onnx --preset"):
        ModelStore(tmp_path).find(str(folder), "embedding")
