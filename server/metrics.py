"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from server.work import WorkPool

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters and histograms of one process."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "face_requests", "Pictures asked about, by mode and outcome", ("mode", "outcome"), registry=self._registry
        )
        self._stages = Histogram(
            "face_stage_seconds", "Time by stage", ("stage",), buckets=_SECONDS, registry=self._registry
        )
        self._faces = Counter("face_faces", "Faces by what became of them", ("result",), registry=self._registry)
        self._pending = Gauge("face_pending", "Calls that run or wait", ("pool",), registry=self._registry)

    def answered(self, mode: str, timing_ms: Mapping[str, float], recognized: int, unknown: int) -> None:
        """Count a picture that was answered with 200."""
        self._requests.labels(mode, "success").inc()
        for stage, milliseconds in timing_ms.items():
            self._stages.labels(stage).observe(milliseconds / 1000)
        self._faces.labels("recognized").inc(recognized)
        self._faces.labels("unknown").inc(unknown)

    def refused(self, mode: str, code: str) -> None:
        """Count a picture that was answered with an error."""
        self._requests.labels(mode, code).inc()

    def watch(self, pool: WorkPool) -> None:
        """Report how many calls run or wait in ``pool`` at the time of each reading."""
        self._pending.labels(pool.name).set_function(lambda: pool.pending)

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
