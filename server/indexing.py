"""Domains that outgrow an exact search in pgvector get their indexes in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NoReturn

from matchers.errors import MatcherError
from server.backend import Backend

logger = logging.getLogger(__name__)

_SECONDS = 10.0


async def keep_indexed(current: Callable[[], Backend]) -> NoReturn:
    """Look every ten seconds; ``current`` gives the backend, which a reload replaces.

    Every worker does; of several, one builds and the others pass the domain over. A store that closes gives up what it
    builds, and the next one begins again.
    """
    told = ""
    while True:
        await asyncio.sleep(_SECONDS)
        store = current().stores.pgvector
        if store is None:
            continue
        try:
            await asyncio.to_thread(store.build_indexes)
        except MatcherError as error:
            if str(error) != told:
                logger.warning("large domains are searched exactly, their indexes were not built: %s", error)
            told = str(error)
        else:
            told = ""
