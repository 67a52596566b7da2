"""Work beside the requests that must not end before the server does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0


async def kept_up(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> NoReturn:
    """Do ``work``, which has no end of its own; when it fails the log says so, and it begins again."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("%s failed and begins again", name)
        await asyncio.sleep(_PAUSE_SECONDS)
