"""Real servers on what people bring along: an InsightFace pack as it is, and DeepFace's detector."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.packs import make_pack
from tests.processes import Start
from tests.runtime.test_align_deepface import CARD, pixels_as_embedding


def test_a_pack_folder_is_served_without_copying_anything(
    start: Start, shared: Path, group_picture: Path, tmp_path: Path
) -> None:
    pytest.importorskip("insightface.app", exc_type=ImportError)
    pack = make_pack(tmp_path / ".insightface" / "models" / "buffalo_l", shared / "models" / "scrfd_500m_kps.onnx")
    reference = "~/.insightface/models/buffalo_l"
    with start(DETECTOR=reference, EMBEDDER=reference, HOME=str(tmp_path), VECTOR_DB_ENABLED="false") as service:
        service.client.post("/domains/d").raise_for_status()
        answer = service.analyze(group_picture, "d")
        assert [len(face["landmarks"]) for face in answer["faces"]] == [5] * 6
        status = service.client.get("/status", headers={"Accept": "application/json"}).json()
    assert [model["card"]["name"] for model in status["models"]] == ["buffalo_l-det_10g", "buffalo_l-w600k_r50"]
    assert {finding["status"] for finding in status["findings"]} == {"ok"}
    assert len(list(pack.iterdir())) == 4


def test_haar_is_served_without_a_file(start: Start, group_picture: Path, tmp_path: Path) -> None:
    embedder = pixels_as_embedding(tmp_path / "corner.onnx", CARD)
    with start(DETECTOR="haar", EMBEDDER=str(embedder), VECTOR_DB_ENABLED="false") as service:
        service.client.post("/domains/d").raise_for_status()
        answer = service.analyze(group_picture, "d")
        status = service.client.get("/status", headers={"Accept": "application/json"}).json()
    assert {len(face["landmarks"]) for face in answer["faces"]} == {0, 2}
    assert json.dumps(answer, allow_nan=False)
    findings = {finding["part"]: finding for finding in status["findings"]}
    assert findings["detector haar"]["status"] == "ok"
    assert status["models"][0]["card"]["name"] == "haar"
