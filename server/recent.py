"""Answers that cost the database something, kept for a moment, so that a page may ask for them all the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

_LEAST_SECONDS = 1.0
_MOST_SECONDS = 60.0
# What took a second is computed anew every twenty seconds at most.
_SHARE = 20.0
_MOST = 256


class Recent:
    """Computed values by key. Thread-safe; what several ask for at once is computed once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Hashable, tuple[float, Any]] = {}
        self._computing: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What ``compute`` gave for ``key`` a moment ago, or gives now; a failure is not kept.

        Who asks while another one computes gets what was there before, and waits only when there was nothing.
        """
        with self._lock:
            known = self._values.get(key)
            alone = self._computing.setdefault(key, threading.Lock())
        if known is not None and (time.monotonic() < known[0] or not alone.acquire(blocking=False)):
            value: T = known[1]
            return value
        if known is None:
            alone.acquire()
        try:
            return self._fresh(key, compute)
        finally:
            alone.release()

    def _fresh(self, key: Hashable, compute: Callable[[], T]) -> T:
        start = time.monotonic()
        with self._lock:
            known = self._values.get(key)
        if known is not None and start < known[0]:
            other: T = known[1]
            return other
        value = compute()
        end = time.monotonic()
        until = end + min(_MOST_SECONDS, max(_LEAST_SECONDS, _SHARE * (end - start)))
        with self._lock:
            if len(self._values) >= _MOST:
                self._values.clear()
                self._computing.clear()
            self._values[key] = until, value
        return value
