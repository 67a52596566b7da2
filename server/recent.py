"""Answers that cost the database something, kept for a moment, so that a page may ask for them all the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_LEAST_SECONDS = 1.0
_MOST_SECONDS = 60.0
# What took a second is computed anew every twenty seconds at most.
_SHARE = 20.0
_MOST = 256


@dataclass(frozen=True, slots=True)
class _Known:
    state: Hashable
    until: float
    value: Any


class Recent:
    """Computed values by key. Thread-safe; what several ask for at once is computed once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Hashable, _Known] = {}
        self._computing: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, compute: Callable[[], T], state: Hashable = None) -> T:
        """What ``compute`` gave for ``key`` a moment ago, or gives now; a failure is not kept.

        Who asks while another one computes gets what was there before, and waits only when there was nothing.

        Args:
            state: what the value is true for; a value of another state is not given any more.
        """
        with self._lock:
            alone = self._computing.setdefault(key, threading.Lock())
        known = self._known(key, state)
        if known is not None and (time.monotonic() < known.until or not alone.acquire(blocking=False)):
            value: T = known.value
            return value
        if known is None:
            alone.acquire()
        try:
            return self._fresh(key, compute, state)
        finally:
            alone.release()

    def _known(self, key: Hashable, state: Hashable) -> _Known | None:
        with self._lock:
            known = self._values.get(key)
        return known if known is not None and known.state == state else None

    def _fresh(self, key: Hashable, compute: Callable[[], T], state: Hashable) -> T:
        start = time.monotonic()
        known = self._known(key, state)
        if known is not None and start < known.until:
            other: T = known.value
            return other
        value = compute()
        end = time.monotonic()
        until = end + min(_MOST_SECONDS, max(_LEAST_SECONDS, _SHARE * (end - start)))
        with self._lock:
            if len(self._values) >= _MOST:
                self._values.clear()
                self._computing.clear()
            self._values[key] = _Known(state, until, value)
        return value
