"""What many comparisons of the two stores say together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from matchers.compare import Comparison
from matchers.gates import Figures
from matchers.reasons import Reason

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class RequestFigures:
    """One picture searched in both stores.

    Attributes:
        pkl_ms, pgvector_ms: how long each search took; None when the store gave no answer.
        failed: pgvector gave none.
    """

    pkl_ms: float | None
    pgvector_ms: float | None
    failed: bool


@dataclass(frozen=True, slots=True)
class FaceFigures:
    """One face that both stores answered for.

    Attributes:
        comparison: how far they agree.
        disagrees: see :func:`matchers.reasons.disagree`.
        reason: why they disagree; None when they agree or when it is not known yet.
    """

    comparison: Comparison
    disagrees: bool
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles and extremes of one quantity."""

    mean: float
    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures over many requests; None where there is nothing to measure.

    Attributes:
        requests: pictures searched in both stores.
        failures: those that pgvector did not answer.
        failure_rate: their share, 0 to 1.
        comparisons: faces that both stores answered for.
        top1_rate: share of these with the same nearest person in both.
        top5_overlap: mean share of the first five results that both hold.
        distance_delta: largest difference between the two distances of one result, face by face.
        latency_ms: milliseconds of a search by store, ``pkl`` and ``pgvector``.
        disagreements: faces on which the stores disagree.
        reasons: how many of these by reason; ``unknown`` for those that are not looked into yet.
    """

    requests: int
    failures: int
    failure_rate: float | None
    comparisons: int
    top1_rate: float | None
    top5_overlap: float | None
    distance_delta: Spread | None
    latency_ms: Mapping[str, Spread | None]
    disagreements: int
    reasons: Mapping[str, int]

    def figures(self, differences: int | None) -> Figures:
        """What the gates look at; ``differences``: pictures that the stores do not hold alike, None when not known."""
        return Figures(
            comparisons=self.comparisons,
            top1_matches=round((self.top1_rate or 0.0) * self.comparisons),
            overlap=self.top5_overlap or 0.0,
            searches=self.requests,
            failures=self.failures,
            differences=differences,
        )


def summarize(requests: Sequence[RequestFigures], faces: Sequence[FaceFigures]) -> Summary:
    """The figures of ``requests`` and of the ``faces`` in them that both stores answered for."""
    failures = sum(request.failed for request in requests)
    comparisons = [face.comparison for face in faces]
    disagreeing = [face for face in faces if face.disagrees]
    return Summary(
        requests=len(requests),
        failures=failures,
        failure_rate=failures / len(requests) if requests else None,
        comparisons=len(faces),
        top1_rate=_mean([float(comparison.top1_match) for comparison in comparisons]),
        top5_overlap=_mean([comparison.top5_overlap for comparison in comparisons]),
        distance_delta=_spread([comparison.max_distance_delta for comparison in comparisons]),
        latency_ms={
            "pkl": _spread([request.pkl_ms for request in requests if request.pkl_ms is not None]),
            "pgvector": _spread([request.pgvector_ms for request in requests if request.pgvector_ms is not None]),
        },
        disagreements=len(disagreeing),
        reasons=dict(Counter(face.reason or "unknown" for face in disagreeing).most_common()),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    p50, p95, p99 = (float(value) for value in np.percentile(values, PERCENTILES))
    return Spread(float(np.mean(values)), p50, p95, p99, float(max(values)))
