"""How often somebody may ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_BURST_SECONDS = 2.0


class RateLimiter:
    """Token buckets by name, in this process. Each holds two seconds' worth of requests. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: seconds that only grow."""
        self._clock = clock
        self._lock = threading.Lock()
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, name: str, rate: float) -> float:
        """Take one request of ``name`` at ``rate`` a second (0: no limit).

        Returns:
            0 when it may pass, otherwise the seconds until the next one may.
        """
        if rate <= 0:
            return 0.0
        size = max(1.0, rate * _BURST_SECONDS)
        now = self._clock()
        with self._lock:
            level, since = self._levels.get(name, (size, now))
            level = min(size, level + (now - since) * rate)
            passes = level >= 1
            self._levels[name] = (level - 1 if passes else level, now)
        return 0.0 if passes else (1 - level) / rate
