"""What must happen at a moment unless it is called off before; one thread waits for all of it.

A ``threading.Timer`` starts a thread for each wait, which costs more than a search.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_log = logging.getLogger("matchers.watchdog")


class _Alarm:
    """An action that is due at a moment; ``lock`` is held while it is done."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action
        self.lock = threading.Lock()


class Watchdog:
    """Does things at a moment of ``time.monotonic``, in a thread of its own that ends when nothing is due any more.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._due: list[tuple[float, int, _Alarm]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._watching = False

    @contextmanager
    def at(self, deadline: float, action: Callable[[], None]) -> Iterator[None]:
        """Do ``action`` at ``deadline`` unless the block ends before; the block does not end while it is done."""
        alarm = _Alarm(action)
        with self._changed:
            heapq.heappush(self._due, (deadline, next(self._numbers), alarm))
            if not self._watching:
                threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
                self._watching = True
            elif self._due[0][2] is alarm:
                self._changed.notify()
        try:
            yield
        finally:
            with alarm.lock:
                alarm.action = None

    def _watch(self) -> None:
        while (alarm := self._next()) is not None:
            with alarm.lock:
                if alarm.action is not None:
                    _do(alarm.action)

    def _next(self) -> _Alarm | None:
        """The next one that is due, once it is; None when none is left."""
        with self._changed:
            while self._due:
                deadline, _, alarm = self._due[0]
                wait = deadline - time.monotonic()
                if wait <= 0 or alarm.action is None:
                    heapq.heappop(self._due)
                    if alarm.action is not None:
                        return alarm
                else:
                    self._changed.wait(wait)
            self._watching = False
            return None


def _do(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception:
        _log.exception("what was due could not be done")
