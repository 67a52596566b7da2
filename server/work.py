"""Threads for work that would block the event loop, with a queue that has an end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from server.errors import overloaded

T = TypeVar("T")


class WorkPool:
    """Runs at most ``threads`` calls at once and lets ``waiting`` more wait. A call given up by its caller while it
    waits frees its place."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self.name = name
        self._capacity = threads + waiting
        self._pending = 0
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    @property
    def pending(self) -> int:
        """How many calls run or wait."""
        return self._pending

    def check_room(self) -> None:
        """Raises ApiError 503 when one more call would not be taken."""
        if self._pending >= self._capacity:
            raise overloaded()

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work()`` returns, computed in a thread.

        Raises:
            ApiError: 503, too many calls wait already.
        """
        with self._lock:
            self.check_room()
            self._pending += 1
        future = self._executor.submit(work)
        future.add_done_callback(self._left)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Wait for the calls that run; drop those that wait."""
        self._executor.shutdown(cancel_futures=True)

    def _left(self, _future: Future[Any]) -> None:
        with self._lock:
            self._pending -= 1
