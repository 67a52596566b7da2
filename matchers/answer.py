"""The JSON object that ``POST /analyze`` and ``matchers search --json`` answer with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from matchers.base import Match, Results
from matchers.compare import Comparison, merge
from matchers.describe import Seen, describe
from matchers.dual import Outcome
from matchers.languages import Language
from runtime.faces import Analysis, FloatArray

# One step over the threshold takes the confidence from 0.5 to 0.27; two people are seldom less than 0.1 apart.
_CONFIDENCE_STEP = 0.1


def analyze_answer(
    analysis: Analysis,
    outcome: Outcome,
    *,
    domain: str,
    language: Language,
    threshold: float,
    top_k: int,
    language_name: str = "",
) -> dict[str, Any]:
    """One analysed and searched picture as a JSON object (see "Contracts" in the design).

    ``faces`` stand in the order of detection, largest score first. Each has:

    - ``landmarks``: five points, [x, y] each, in pixels; those that the detector does not give are left out, so that
      ``haar`` gives both eyes or none.
    - ``person``: who the nearest enrolled face is when it is at most ``threshold`` away, otherwise null. PKL decides
      wherever it was searched (it is the trusted store until cut-over), pgvector in ``pgvector_only``.
    - ``distance``: cosine distance of that nearest face, null when the domain holds none.
    - ``confidence``: see :func:`confidence`; 0 when the domain holds no face.
    - ``pkl_results``, ``pgvector_results``: the ``top_k`` nearest, under the threshold or not; empty when that store
      did not answer or was not asked.
    - ``comparison``: how far the stores agree, null unless both answered. In a domain that pgvector searches through an
      index, what it missed beyond the threshold does not count (:func:`matchers.compare.counted`).

    At the top, ``recognized_faces`` lists each person once, from left to right; ``pgvector_results`` holds pgvector's
    nearest match of every face that it recognises (at most ``threshold`` away), from left to right; ``comparison``
    covers all faces (:func:`matchers.compare.merge`), null unless both stores answered.

    ``description`` says in ``language`` who is where (:func:`matchers.describe.describe`); ``language_name`` is what
    the caller calls it, by default its English name. ``threshold`` is a cosine distance. Pixels are integers, all
    numbers are finite.
    """
    count = len(analysis.detections)
    pkl = _sliced(outcome.pkl, count, top_k)
    pgvector = _sliced(outcome.pgvector, count, top_k)
    deciding = pgvector if outcome.pkl is None else pkl
    comparisons: Sequence[Comparison | None] = outcome.comparisons or [None] * count
    left_to_right = [int(index) for index in np.argsort(_centres(analysis), kind="stable")]
    people = [_recognized(deciding[index], threshold) for index in range(count)]
    known = [index for index in left_to_right if _recognized(pgvector[index], threshold) is not None]
    return {
        "status": "success",
        "mode": outcome.mode,
        "domain": domain,
        "language": language_name or language.name,
        "description": describe(_seen(analysis, people), analysis.width, language),
        "image": {"width": analysis.width, "height": analysis.height},
        "faces": [
            {
                **_detection(analysis, index),
                "person": people[index],
                "distance": _distance(deciding[index][0].distance) if deciding[index] else None,
                "confidence": round(confidence(deciding[index][0].distance, threshold), 6) if deciding[index] else 0.0,
                "pkl_results": [_match(match) for match in pkl[index]],
                "pgvector_results": [_match(match) for match in pgvector[index]],
                "comparison": _comparison(comparisons[index]),
            }
            for index in range(count)
        ],
        "recognized_faces": _named_once(people[index] for index in left_to_right),
        "pgvector_results": [_match(pgvector[index][0]) for index in known],
        "comparison": _comparison(None if outcome.comparisons is None else merge(outcome.comparisons)),
        "timing_ms": {key: round(value, 3) for key, value in {**analysis.timing_ms, **outcome.timing_ms}.items()},
    }


def confidence(distance: float, threshold: float) -> float:
    """How sure the nearest match is, 0 to 1: ``1 / (1 + exp((distance - threshold) / 0.1))``.

    It falls as the distance grows and is 0.5 at the threshold. It is not a probability measured on data.
    """
    exponent = (distance - threshold) / _CONFIDENCE_STEP
    # The half that cannot overflow: exp of a large positive number would.
    return 1 / (1 + math.exp(exponent)) if exponent < 0 else math.exp(-exponent) / (1 + math.exp(-exponent))


def _named_once(people: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(person for person in people if person is not None))


def _seen(analysis: Analysis, people: Sequence[str | None]) -> list[Seen]:
    widths = analysis.detections.boxes[:, 2]
    return [
        Seen(person, float(centre), float(width))
        for person, centre, width in zip(people, _centres(analysis), widths, strict=True)
    ]


def _detection(analysis: Analysis, index: int) -> dict[str, Any]:
    x, y, width, height = (round(float(value)) for value in analysis.detections.boxes[index])
    found = analysis.detections.landmarks[index]
    return {
        "box": {"x": x, "y": y, "w": width, "h": height},
        "landmarks": [[round(float(px), 2), round(float(py), 2)] for px, py in found[np.isfinite(found).all(axis=1)]],
        "detection_score": round(float(analysis.detections.scores[index]), 6),
    }


def _centres(analysis: Analysis) -> FloatArray:
    boxes = analysis.detections.boxes
    return np.asarray(boxes[:, 0] + boxes[:, 2] / 2, np.float32)


def _sliced(results: Results | None, count: int, top_k: int) -> Results:
    return [[] for _ in range(count)] if results is None else [matches[:top_k] for matches in results]


def _recognized(matches: Sequence[Match], threshold: float) -> str | None:
    return matches[0].person if matches and matches[0].distance <= threshold else None


def _match(match: Match) -> dict[str, Any]:
    return {"person": match.person, "distance": _distance(match.distance), "source": match.source}


def _comparison(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    return {
        "top1_match": comparison.top1_match,
        "top5_overlap": round(comparison.top5_overlap, 6),
        "max_distance_delta": round(comparison.max_distance_delta, 9),
    }


def _distance(value: float) -> float:
    # Rounding noise takes the distance of equal vectors to -1e-8; people read -0.0 as a mistake.
    return max(0.0, round(float(value), 6))
