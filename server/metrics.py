"""What Prometheus is told.

With several workers, each request for ``/metrics`` reaches one of them. When ``PROMETHEUS_MULTIPROC_DIR`` names a
folder (``python -m server --workers`` makes one) they keep their figures there, and each tells the sum of all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from matchers.breaker import CircuitBreaker
from matchers.dual import PGVECTOR_FAILED, Outcome
from matchers.pgvector import PgvectorStore
from matchers.reasons import named
from matchers.recording.recorder import Recorder
from runtime.engine import FaceEngine
from server.work import WorkPool

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus_client, which reads it when it is imported."""

STAGES: Final = ("decode", "detect", "align", "embed", "search_pkl", "search_pgvector", "compare", "total")
"""There from the beginning: a full disk must not meet the first picture that is timed."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SUM: Final = "livesum"
_MOST: Final = "livemax"


class Metrics:
    """Counters, histograms and gauges of this process."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._folder = os.environ.get(FOLDER)
        if self._folder:
            _bury_the_dead(Path(self._folder))
        self._registry = CollectorRegistry()
        self._readings: list[Callable[[], None]] = []
        self._requests = self._counter("requests", "Pictures asked about, by mode and outcome", "mode", "outcome")
        self._stages = Histogram(
            "face_stage_seconds", "Time by stage", ("stage",), buckets=_SECONDS, registry=self._registry
        )
        for stage in STAGES:
            self._stages.labels(stage)
        self._faces = self._counter("faces", "Faces by what became of them", "result")
        self._matches = self._counter("matches", "Faces that a store has a person for", "store")
        self._comparisons = self._counter("comparisons", "Faces that both stores answered for", "top1_match")
        self._overlap = self._counter("top5_overlap", "Sum of the shares of the first five results that both hold")
        self._failures = self._counter("pgvector_failures", "Searches that pgvector did not answer")
        self._recorded = self._counter("recorded", "Comparisons by what became of them", "result")
        self._unwritten = self._gauge("recorded_waiting", "Comparisons in memory that are not written yet", _SUM)
        self._pending = self._gauge("pending", "Calls that run or wait", _SUM, "pool")
        self._breaker = self._gauge("pgvector_breaker_open", "1 while pgvector is not asked", _MOST)
        self._connections = self._gauge("pgvector_connections", "Connections of the pool", _SUM, "state")
        self._session = self._gauge("session", "1 for each open model", _MOST, "role", "model", "provider")

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

    def searched(self, outcome: Outcome, threshold: float) -> None:
        """Count what the stores said about the faces of one picture."""
        for store, results in (("pkl", outcome.pkl), ("pgvector", outcome.pgvector)):
            found = sum(named(matches, threshold) is not None for matches in results or ())
            self._matches.labels(store).inc(found)
        for comparison in outcome.comparisons or ():
            self._comparisons.labels(str(comparison.top1_match).lower()).inc()
            self._overlap.inc(comparison.top5_overlap)
        if outcome.mode == PGVECTOR_FAILED:
            self._failures.inc()

    def watch_pool(self, pool: WorkPool) -> None:
        """Tell how many calls run or wait in ``pool``."""
        gauge = self._pending.labels(pool.name)
        self._readings.append(lambda: gauge.set(pool.pending))

    def watch_breaker(self, breaker: CircuitBreaker) -> None:
        """Tell whether pgvector is asked."""
        self._readings.append(lambda: self._breaker.set(breaker.state != "closed"))

    def watch_recorder(self, recorder: Recorder) -> None:
        """Tell how many comparisons were kept, how many were dropped for want of room, and how many wait."""
        told = {"kept": 0, "dropped": 0}

        def read() -> None:
            for result, count in (("kept", recorder.written), ("dropped", recorder.dropped)):
                self._recorded.labels(result).inc(count - told[result])
                told[result] = count
            self._unwritten.set(recorder.waiting)

        self._readings.append(read)

    def watch_connections(self, store: PgvectorStore) -> None:
        """Tell how many connections there are, how many of them are free, and how many calls wait for one."""

        def read() -> None:
            for state, count in store.connections().items():
                self._connections.labels(state).set(count)

        self._readings.append(read)

    def watch_engine(self, engine: FaceEngine) -> None:
        """Tell which models run where."""

        def read() -> None:
            for role, card in (("detector", engine.detector_card), ("embedder", engine.embedder_card)):
                self._session.labels(role, card.name, engine.provider).set(1)

        self._readings.append(read)

    def read(self) -> None:
        """Set every gauge to what is so now."""
        for reading in self._readings:
            reading()

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        self.read()
        if not self._folder:
            return generate_latest(self._registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody, self._folder)  # type: ignore[no-untyped-call]
        return generate_latest(everybody)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"face_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, mode: Literal["livesum", "livemax"], *labels: str) -> Gauge:
        return Gauge(f"face_{name}", text, labels, registry=self._registry, multiprocess_mode=mode)


def _bury_the_dead(folder: Path) -> None:
    """Take the gauges of workers that were killed out of the sums."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdecimal() and not Path("/proc", pid).exists() and Path("/proc/self").exists():
            mark_process_dead(int(pid), str(folder))  # type: ignore[no-untyped-call]
