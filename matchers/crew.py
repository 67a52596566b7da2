"""Daemon threads that are kept for the next work: starting one takes longer than a search."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

_MOST_IDLE = 8


class Crew:
    """Does each piece of work at once, in a thread that is idle or in a new one. Thread-safe.

    The threads do not hold up the end of the process. Those that are idle beyond a few end.
    """

    def __init__(self, name: str) -> None:
        """``name``: of the threads."""
        self._name = name
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = 0

    def do(self, work: Callable[[], None]) -> None:
        """Have ``work`` done, which must not raise.

        Raises:
            RuntimeError: no thread could be started.
        """
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._work.put(work)
                return
        threading.Thread(target=self._run, args=(work,), name=self._name, daemon=True).start()

    def _run(self, work: Callable[[], None]) -> None:
        while True:
            work()
            with self._lock:
                if self._idle >= _MOST_IDLE:
                    return
                self._idle += 1
            work = self._work.get()
