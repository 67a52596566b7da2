"""The way back: while pgvector fails, domains in ``pgvector_only`` answer from PKL, and go up again by themselves.

The searcher does it request by request (its breaker leaves pgvector alone). Here it is noted in the audit log, and
pgvector is asked whether it is back, so that no request has to find out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NoReturn

from starlette.concurrency import run_in_threadpool

from matchers.dual import PGVECTOR_FAILED
from matchers.errors import MatcherError, StoreUnavailable
from server.backend import Backend

logger = logging.getLogger(__name__)

_SECONDS = 0.5


async def watch_pgvector(current: Callable[[], Backend]) -> NoReturn:
    """Look twice a second; ``current`` gives the backend, which a reload replaces."""
    fallen: set[str] = set()
    while True:
        await asyncio.sleep(_SECONDS)
        try:
            fallen = await run_in_threadpool(_look, current(), fallen)
        except MatcherError as error:
            logger.error("the way back of a domain could not be noted: %s", error)


def _look(backend: Backend, fallen: set[str]) -> set[str]:
    breaker, store = backend.searcher.breaker, backend.stores.pgvector
    if breaker.state == "half-open" and store is not None:
        try:
            breaker.call(store.ping)
        except StoreUnavailable as error:
            logger.debug("pgvector does not answer yet: %s", error)
    if breaker.state == "closed":
        for domain in fallen:
            if backend.audit.append_automatic(domain, PGVECTOR_FAILED, "pgvector_only"):
                logger.info("domain %s answers from pgvector again", domain)
        return set()
    for domain in _leaning(backend) - fallen:
        if backend.audit.append_automatic(domain, "pgvector_only", PGVECTOR_FAILED):
            logger.warning("pgvector fails: domain %s answers from PKL until it is back", domain)
        fallen = fallen | {domain}
    return fallen


def _leaning(backend: Backend) -> set[str]:
    """Domains that pgvector answers for alone, and that PKL can answer for meanwhile."""
    return {domain for domain in backend.stores.pkl.domains() if backend.mode(domain) == "pgvector_only"}
