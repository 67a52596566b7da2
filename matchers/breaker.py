"""A circuit breaker: a store that keeps failing is left alone for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, TypeVar

from matchers.errors import MatcherError, StoreUnavailable

_WINDOW = 20
_SHARE = 0.5

State = Literal["closed", "open", "half-open"]
T = TypeVar("T")

_logger = logging.getLogger(__name__)


class CircuitBreaker:
    """Lets calls through until ``failures`` in a row, or half of the last twenty, have failed; then refuses them for
    ``cooldown`` seconds.

    After the cooldown one call goes through as a probe: its success closes the breaker, its failure opens it again.
    Safe to share between threads.

    Args:
        failures: how many failures in a row open the breaker.
        cooldown: seconds until the probe.
        clock: seconds that only grow.
    """

    def __init__(self, failures: int = 3, cooldown: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        if failures < 1:
            raise ValueError(f"a breaker opens after 1 or more failures, not after {failures}")
        self._limit = failures
        self._cooldown = cooldown
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = 0
        self._last: deque[bool] = deque(maxlen=_WINDOW)
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        """``closed`` (calls pass), ``open`` (calls are refused) or ``half-open`` (one probe may pass)."""
        with self._lock:
            return self._state()

    def call(self, work: Callable[[], T]) -> T:
        """Run ``work`` and hand on its result or its exception.

        A :class:`MatcherError` other than :class:`StoreUnavailable` is an answer of a store that works; every other
        exception counts as a failure.

        Raises:
            StoreUnavailable: the breaker is open, ``work`` was not run.
        """
        self._admit()
        try:
            result = work()
        except StoreUnavailable:
            self._record_failure()
            raise
        except MatcherError:
            self._record_success()
            raise
        except BaseException:
            self._record_failure()
            raise
        self._record_success()
        return result

    def _state(self) -> State:
        if self._opened_at is None:
            return "closed"
        if self._probing or self._clock() - self._opened_at >= self._cooldown:
            return "half-open"
        return "open"

    def _admit(self) -> None:
        with self._lock:
            state = self._state()
            if state == "closed":
                return
            if state == "open" or self._probing:
                raise StoreUnavailable(
                    f"the store failed too often and is left alone; it is tried again after {self._cooldown:g} s"
                )
            self._probing = True
        _logger.info("circuit breaker half-open: trying the store again")

    def _record_success(self) -> None:
        with self._lock:
            reopened = self._opened_at is not None
            self._failed = 0
            self._last.append(False)
            if reopened:
                self._last.clear()
            self._opened_at = None
            self._probing = False
        if reopened:
            _logger.info("circuit breaker closed: the store answers again")

    def _record_failure(self) -> None:
        with self._lock:
            was_closed = self._opened_at is None
            self._failed += 1
            self._last.append(True)
            self._probing = False
            # A store that fails now and then, never often in a row, is none to rely on either.
            opens = self._failed >= self._limit or sum(self._last) >= _WINDOW * _SHARE or not was_closed
            if opens:
                self._opened_at = self._clock()
        if opens:
            log = _logger.warning if was_closed else _logger.info
            log("circuit breaker open: the store fails too often, next try in %g s", self._cooldown)
