"""How long things take beside each other, on a machine that does other things as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

ROUNDS = 31


def interleaved(
    runs: Sequence[Callable[[], object]], rounds: int = ROUNDS, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Median milliseconds of each of ``runs``, which take turns, so that a busy moment meets all of them alike.

    Args:
        runs: what to measure; each runs once more before.
        rounds: how often.
        clock: seconds; ``time.process_time`` counts the work of all threads of this process and of nobody else.
    """
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(rounds):
        for taken, run in zip(times, runs, strict=True):
            start = clock()
            run()
            taken.append(clock() - start)
    return [float(np.median(taken)) * 1000 for taken in times]
