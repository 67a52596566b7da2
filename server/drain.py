"""SIGTERM: first not ready, then no new connections, then the end of what is under way."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from types import FrameType

from starlette.applications import Starlette

logger = logging.getLogger(__name__)


def drain_on_sigterm(app: Starlette, seconds: float) -> None:
    """From now on SIGTERM makes ``app`` answer "not ready" for ``seconds``, and only then reaches the server.

    In these seconds load balancers take the worker out while it still answers whoever comes. A second SIGTERM ends the
    waiting. Call it in the event loop, when the server has put its own handler in place; does nothing in a thread
    other than the main one, which gets no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    end = signal.getsignal(signal.SIGTERM)

    def hand_over(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, end)
        if callable(end):
            end(number, frame)
        else:
            signal.raise_signal(number)

    def drain(number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, hand_over)
        app.state.ready = False
        logger.info("SIGTERM: not ready from now on, closing in %g s", seconds)
        loop.call_soon_threadsafe(loop.call_later, seconds, give_way, number)

    def give_way(number: int) -> None:
        if signal.getsignal(signal.SIGTERM) is hand_over:
            hand_over(number, None)

    signal.signal(signal.SIGTERM, drain)
