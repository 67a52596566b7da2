"""The JSON object of an analysed picture."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchers.answer import analyze_answer, confidence
from matchers.base import Match
from matchers.compare import compare
from matchers.dual import PGVECTOR_FAILED, Outcome
from matchers.languages import Languages
from runtime.faces import Analysis, Detections

THRESHOLD = 0.6
ENGLISH = Languages().default


def analysis(*lefts: float) -> Analysis:
    """A picture with one face of 40 x 50 pixels at each of ``lefts``, in the order of detection."""
    count = len(lefts)
    boxes = np.array([[left, 10.4, 40.0, 50.0] for left in lefts], np.float32).reshape(count, 4)
    landmarks = np.arange(count * 10, dtype=np.float32).reshape(count, 5, 2) / 3
    scores = np.linspace(0.99, 0.9, count, dtype=np.float32)
    embeddings = np.eye(max(count, 1), 4, dtype=np.float32)[:count]
    return Analysis(640, 480, Detections(boxes, landmarks, scores), embeddings, {"decode": 1.23456, "embed": 20.0})


def dual(pkl: list[list[Match]], pgvector: list[list[Match]]) -> Outcome:
    comparisons = [compare(ours, theirs) for ours, theirs in zip(pkl, pgvector, strict=True)]
    return Outcome("dual", pkl, pgvector, comparisons, {"search_pkl": 0.5, "search_pgvector": 2.0, "compare": 0.1})


def answer(picture: Analysis, outcome: Outcome, top_k: int = 10) -> dict[str, Any]:
    return analyze_answer(picture, outcome, domain="office", language=ENGLISH, threshold=THRESHOLD, top_k=top_k)


AMY = [Match("amy", 0.31, "amy/1.jpg"), Match("bob", 0.9, "bob/1.jpg")]
BOB = [Match("bob", 0.2, "bob/1.jpg")]
FAR = [Match("bob", 0.61, "bob/1.jpg")]


def test_a_dual_answer_has_every_field_of_the_contract() -> None:
    given_answer = answer(analysis(100.6), dual([AMY], [AMY]))
    assert given_answer == {
        "status": "success",
        "mode": "dual",
        "domain": "office",
        "language": "english",
        "description": "There is one person in the picture: amy (left).",
        "image": {"width": 640, "height": 480},
        "faces": [
            {
                "box": {"x": 101, "y": 10, "w": 40, "h": 50},
                "landmarks": [[0.0, 0.33], [0.67, 1.0], [1.33, 1.67], [2.0, 2.33], [2.67, 3.0]],
                "detection_score": 0.99,
                "person": "amy",
                "distance": 0.31,
                "confidence": round(1 / (1 + math.exp((0.31 - 0.6) / 0.1)), 6),
                "pkl_results": [
                    {"person": "amy", "distance": 0.31, "source": "amy/1.jpg"},
                    {"person": "bob", "distance": 0.9, "source": "bob/1.jpg"},
                ],
                "pgvector_results": [
                    {"person": "amy", "distance": 0.31, "source": "amy/1.jpg"},
                    {"person": "bob", "distance": 0.9, "source": "bob/1.jpg"},
                ],
                "comparison": {"top1_match": True, "top5_overlap": 1.0, "max_distance_delta": 0.0},
            }
        ],
        "recognized_faces": ["amy"],
        "pgvector_results": [{"person": "amy", "distance": 0.31, "source": "amy/1.jpg"}],
        "comparison": {"top1_match": True, "top5_overlap": 1.0, "max_distance_delta": 0.0},
        "timing_ms": {"decode": 1.235, "embed": 20.0, "search_pkl": 0.5, "search_pgvector": 2.0, "compare": 0.1},
    }


def test_a_nearest_face_over_the_threshold_is_nobody_and_still_listed() -> None:
    face = answer(analysis(0), dual([FAR], [FAR]))["faces"][0]
    assert face["person"] is None
    assert face["distance"] == 0.61
    assert face["pkl_results"][0]["person"] == "bob"
    assert answer(analysis(0), dual([FAR], [FAR]))["pgvector_results"] == []


def test_a_nearest_face_at_the_threshold_is_recognised() -> None:
    at = [Match("amy", THRESHOLD, "amy/1.jpg")]
    assert answer(analysis(0), dual([at], [at]))["recognized_faces"] == ["amy"]


def test_people_are_named_once_from_left_to_right_while_faces_keep_their_order() -> None:
    given_answer = answer(analysis(300, 20, 150, 500), dual([AMY, BOB, FAR, AMY], [AMY, BOB, FAR, AMY]))
    assert [face["person"] for face in given_answer["faces"]] == ["amy", "bob", None, "amy"]
    assert given_answer["recognized_faces"] == ["bob", "amy"]
    assert [match["person"] for match in given_answer["pgvector_results"]] == ["bob", "amy", "amy"]
    assert given_answer["description"] == (
        "There are four people in the picture: bob (left), amy (centre), amy (right) and one more unknown person."
    )


def test_pkl_names_the_person_while_the_stores_disagree() -> None:
    given_answer = answer(analysis(0), dual([AMY], [BOB]))
    assert given_answer["faces"][0]["person"] == "amy"
    assert given_answer["comparison"]["top1_match"] is False
    assert given_answer["pgvector_results"][0]["person"] == "bob"


def test_pgvector_names_the_person_when_it_alone_was_asked() -> None:
    face = answer(analysis(0), Outcome("pgvector_only", None, [BOB], None, {}))["faces"][0]
    assert (face["person"], face["pkl_results"], face["comparison"]) == ("bob", [], None)


@pytest.mark.parametrize("mode", ["pkl_only", PGVECTOR_FAILED])
def test_without_pgvector_its_fields_are_empty(mode: str) -> None:
    given_answer = answer(analysis(0), Outcome(mode, [AMY], None, None, {}))
    assert given_answer["mode"] == mode
    assert given_answer["recognized_faces"] == ["amy"]
    assert (given_answer["pgvector_results"], given_answer["comparison"]) == ([], None)
    assert (given_answer["faces"][0]["pgvector_results"], given_answer["faces"][0]["comparison"]) == ([], None)


def test_a_picture_without_faces_is_a_success() -> None:
    given_answer = answer(analysis(), dual([], []))
    assert (given_answer["status"], given_answer["faces"]) == ("success", [])
    assert given_answer["recognized_faces"] == []
    assert given_answer["description"] == "There is no face in the picture."
    assert given_answer["comparison"]["top1_match"] is True


def test_an_empty_domain_has_no_distance() -> None:
    face = answer(analysis(0), dual([[]], [[]]))["faces"][0]
    assert (face["person"], face["distance"], face["confidence"]) == (None, None, 0.0)


def test_results_are_cut_to_top_k() -> None:
    face = answer(analysis(0), dual([AMY], [AMY]), top_k=1)["faces"][0]
    assert len(face["pkl_results"]) == len(face["pgvector_results"]) == 1


@given(st.lists(st.floats(-1e-6, 2, allow_nan=False), max_size=6), st.floats(-500, 500, width=32))
def test_every_answer_is_strict_json(distances: list[float], left: float) -> None:
    matches = [Match("amy", np.float32(distance), "amy/1.jpg") for distance in sorted(distances)]
    given_answer = answer(analysis(left), dual([matches], [matches]))
    assert json.loads(json.dumps(given_answer, allow_nan=False)) == given_answer
    assert all(match["distance"] >= 0 for match in given_answer["faces"][0]["pkl_results"])


@given(st.floats(0, 2), st.floats(0, 2), st.floats(0, 2))
def test_confidence_falls_with_the_distance_from_1_to_0(near: float, far: float, threshold: float) -> None:
    near, far = min(near, far), max(near, far)
    assert 0 <= confidence(far, threshold) <= confidence(near, threshold) <= 1


@given(st.floats(0, 2))
def test_confidence_is_one_half_at_the_threshold(threshold: float) -> None:
    assert confidence(threshold, threshold) == 0.5


def test_confidence_tells_a_likely_match_from_a_near_miss() -> None:
    assert confidence(0.31, 0.66) == pytest.approx(0.97, abs=0.005)
    assert confidence(0.76, 0.66) == pytest.approx(0.27, abs=0.005)
