"""Changes that pgvector missed, or that a killed writer left, finished in the background."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import NoReturn

from matchers.journal import pending, recover
from matchers.service import Stores
from server.errors import ApiError
from server.work import WorkPool

logger = logging.getLogger(__name__)

_SECONDS = 1.0
_DOWN_SECONDS = 2.0


async def heal(stores: Stores, writes: WorkPool) -> NoReturn:
    """Look into the journal every second and finish what is there; while a store is down, look less often.

    Every worker does; of several, the one that holds the lock of a domain works and the others pass it over.
    """
    told: dict[str, str] = {}
    while True:
        await asyncio.sleep(_DOWN_SECONDS if told else _SECONDS)
        try:
            errors = await writes.run(partial(_finish, stores))
        except ApiError:
            continue
        for domain, error in errors.items():
            if told.get(domain) != error:
                logger.warning("domain %s: pgvector has not all that the PKL gallery has: %s", domain, error)
        told = errors


def _finish(stores: Stores) -> dict[str, str]:
    before = pending(stores)
    errors = recover(stores) if before else {}
    for domain in before.keys() - errors.keys():
        logger.info("domain %s: what was pending is finished", domain)
    return errors
