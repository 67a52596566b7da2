"""The JSON object that ``POST /analyze`` and ``matchers search --json`` answer with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from matchers.base import Match
from matchers.compare import Comparison, merge
from matchers.dual import Outcome, Results
from runtime.faces import Analysis, FloatArray

# One step over the threshold takes the confidence from 0.5 to 0.27; two people are seldom less than 0.1 apart.
_CONFIDENCE_STEP = 0.1


def analyze_answer(
    analysis: Analysis, outcome: Outcome, *, domain: str, language: str, threshold: float, top_k: int
) -> dict[str, Any]:
    """One analysed and searched picture as a JSON object (see "Contracts" in the design).

    ``faces`` stand in the order of detection, largest score first. Each has:

    - ``person``: who the nearest enrolled face is when it is at most ``threshold`` away, otherwise null. PKL decides
      wherever it was searched (it is the trusted store until cut-over), pgvector in ``pgvector_only``.
    - ``distance``: cosine distance of that nearest face, null when the domain holds none.
    - ``confidence``: see :func:`confidence`; 0 when the domain holds no face.
    - ``pkl_results``, ``pgvector_results``: the ``top_k`` nearest, under the threshold or not; empty when that store
      did not answer or was not asked.
    - ``comparison``: how far the stores agree, null unless both answered.

    At the top, ``recognized_faces`` lists each person once, from left to right; ``pgvector_results`` holds pgvector's
    nearest match of every face that it recognises (at most ``threshold`` away), from left to right; ``comparison``
    covers all faces (:func:`matchers.compare.merge`), null unless both stores answered.

    ``threshold`` is a cosine distance. Pixels are integers, all numbers are finite.
    """
    count = len(analysis.detections)
    pkl = _sliced(outcome.pkl, count, top_k)
    pgvector = _sliced(outcome.pgvector, count, top_k)
    deciding = pgvector if outcome.pkl is None else pkl
    comparisons: Sequence[Comparison | None] = outcome.comparisons or [None] * count
    left_to_right = [int(index) for index in np.argsort(_centres(analysis), kind="stable")]
    names = [_recognized(deciding[index], threshold) for index in left_to_right]
    known = [index for index in left_to_right if _recognized(pgvector[index], threshold) is not None]
    return {
        "status": "success",
        "mode": outcome.mode,
        "domain": domain,
        "language": language,
        "description": describe(names, language),
        "image": {"width": analysis.width, "height": analysis.height},
        "faces": [
            {
                **_detection(analysis, index),
                "person": _recognized(deciding[index], threshold),
                "distance": _distance(deciding[index][0].distance) if deciding[index] else None,
                "confidence": round(confidence(deciding[index][0].distance, threshold), 6) if deciding[index] else 0.0,
                "pkl_results": [_match(match) for match in pkl[index]],
                "pgvector_results": [_match(match) for match in pgvector[index]],
                "comparison": _comparison(comparisons[index]),
            }
            for index in range(count)
        ],
        "recognized_faces": list(dict.fromkeys(name for name in names if name is not None)),
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


def describe(names: Sequence[str | None], language: str) -> str:
    """One sentence on who is in the picture; ``names`` from left to right, None for a stranger.

    A language that has no sentences yet gets the English ones.
    """
    sentences = _SENTENCES.get(language.casefold(), _SENTENCES["english"])
    if not names:
        return sentences["none"]
    listed = ", ".join(name if name is not None else sentences["stranger"] for name in names)
    form = "strangers" if not any(names) else "many"
    if len(names) == 1:
        form = "one stranger" if names[0] is None else "one"
    return sentences[form].format(count=len(names), names=listed)


_SENTENCES = {
    "english": {
        "none": "No face was found.",
        "one": "One face was found: {names}.",
        "one stranger": "One face was found, nobody known.",
        "many": "{count} faces were found, from left to right: {names}.",
        "strangers": "{count} faces were found, nobody known.",
        "stranger": "unknown",
    },
}


def _detection(analysis: Analysis, index: int) -> dict[str, Any]:
    x, y, width, height = (round(float(value)) for value in analysis.detections.boxes[index])
    return {
        "box": {"x": x, "y": y, "w": width, "h": height},
        "landmarks": [[round(float(px), 2), round(float(py), 2)] for px, py in analysis.detections.landmarks[index]],
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
