"""Where the time of one picture goes, stage by stage."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from runtime.cores import core_count
from runtime.engine import FaceEngine
from runtime.faces import Analysis

_BAR = 40
_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Stage:
    """Milliseconds of one stage: the median, the least and the most of all repetitions; share of the whole, 0 to 1."""

    name: str
    median: float
    least: float
    most: float
    share: float


@dataclass(frozen=True, slots=True)
class Profile:
    """One picture, analysed again and again.

    Attributes:
        width, height: pixels of the picture.
        faces: how many were found.
        factors: as in :class:`runtime.faces.Analysis`.
        detector, embedder: names of the networks.
        provider: what runs them.
        precision: of the embedder.
        threads: of one run on the CPU; 0: all cores alone, one each in a crowd.
        cores: how many the process may keep busy.
        repeat: how often the picture was analysed.
        stages: in the order in which they run.
        total: median milliseconds of the whole.
        parallel: how many pictures were analysed at once for ``per_second``; 0: not measured.
        per_second: pictures.
    """

    width: int
    height: int
    faces: int
    factors: tuple[int, ...]
    detector: str
    embedder: str
    provider: str
    precision: str
    threads: int
    cores: int
    repeat: int
    stages: tuple[Stage, ...]
    total: float
    parallel: int
    per_second: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def table(self) -> str:
        """For people: a line for each stage, with a bar as long as its share."""
        threads = self.threads or "all cores, in a crowd one"
        lines = [
            f"{self.width} x {self.height} pixels, faces: {self.faces}, decoded {_sizes(self.factors)}",
            f"{self.detector} + {self.embedder} ({self.precision}) on {self.provider}; "
            f"cores: {self.cores}, threads of a run: {threads}",
            "",
            f"{'stage':8} {'median':>10} {'least':>9} {'most':>9}  share",
        ]
        for stage in self.stages:
            bar = "█" * round(stage.share * _BAR)
            figures = f"{stage.median:7.2f} ms {stage.least:9.2f} {stage.most:9.2f}"
            lines.append(f"{stage.name:8} {figures}  {bar} {stage.share:.0%}")
        lines.append(f"{'all':8} {self.total:7.2f} ms  {1000 / self.total:.1f} pictures/s, one after the other")
        if self.parallel:
            lines.append(f"{'':8} {'':10}  {self.per_second:.1f} pictures/s, {self.parallel} at once")
        return "\n".join(lines)


def profile(engine: FaceEngine, data: bytes, repeat: int = 30, parallel: int = 8) -> Profile:
    """Analyse the picture file ``data`` ``repeat`` times, and then as often with ``parallel`` at once.

    Raises:
        ImageError: the bytes are not a picture that can be used.
    """
    for _ in range(_WARM_UP):
        engine.analyze(data)
    runs = [engine.analyze(data) for _ in range(repeat)]
    total = statistics.median(sum(run.timing_ms.values()) for run in runs)
    return Profile(
        width=runs[0].width,
        height=runs[0].height,
        faces=len(runs[0].detections),
        factors=runs[0].factors,
        detector=engine.detector_card.name,
        embedder=engine.embedder_card.name,
        provider=engine.provider,
        precision=engine.precision,
        threads=engine.embedder.session.options.threads,
        cores=core_count(),
        repeat=repeat,
        stages=_stages(runs),
        total=total,
        parallel=parallel,
        per_second=_per_second(engine, data, repeat, parallel) if parallel else 0.0,
    )


def _sizes(factors: tuple[int, ...]) -> str:
    first, *more = ["in full" if factor == 1 else f"at 1/{factor}" for factor in factors]
    return f"{first} for the detector, {more[0]} for the crops" if more else first


def _stages(runs: Sequence[Analysis]) -> tuple[Stage, ...]:
    medians = {name: statistics.median(run.timing_ms[name] for run in runs) for name in runs[0].timing_ms}
    whole = sum(medians.values())
    return tuple(
        Stage(
            name,
            middle,
            min(run.timing_ms[name] for run in runs),
            max(run.timing_ms[name] for run in runs),
            middle / whole,
        )
        for name, middle in medians.items()
    )


def _per_second(engine: FaceEngine, data: bytes, repeat: int, parallel: int) -> float:
    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(engine.analyze, [data] * parallel))
        start = time.perf_counter()
        list(pool.map(engine.analyze, [data] * max(repeat, parallel)))
        return max(repeat, parallel) / (time.perf_counter() - start)
