"""Is the process alive, is it ready, and what does it count?"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from matchers.errors import StoreUnavailable
from server.backend import Backend, backend_of
from server.errors import ApiError

logger = logging.getLogger(__name__)

_PING_SECONDS = 2.0


async def live(_request: Request) -> Response:
    """200 while the event loop runs."""
    return JSONResponse({"status": "live"})


async def ready(request: Request) -> Response:
    """200 while pictures can be answered, with what is degraded; 503 while the server starts or stops."""
    if not request.app.state.ready:
        raise ApiError(503, "not_ready", "The server is starting or stopping.", {"Retry-After": "1"})
    backend = backend_of(request)
    pkl, pgvector = await _pkl(backend), await _pgvector(backend)
    return JSONResponse(
        {
            "status": "degraded" if "degraded" in (pkl["status"], pgvector["status"]) else "ready",
            "mode": backend.default_mode,
            "provider": backend.engine.provider,
            "models": {
                "detector": backend.engine.detector_card.name,
                "embedder": backend.engine.embedder_card.name,
            },
            "pkl": pkl,
            "pgvector": pgvector,
        }
    )


async def metrics(request: Request) -> Response:
    """Prometheus' text format; asks for a token where the server has any."""
    backend = backend_of(request)
    backend.tokens.check(request.headers.get("authorization"))
    return Response(backend.metrics.render(), media_type=backend.metrics.content_type)


async def _pkl(backend: Backend) -> dict[str, Any]:
    """Which domains it is, the log and ``GET /status`` say: nobody was asked for a token here."""
    try:
        unreadable = await backend.searches.run(backend.stores.pkl.unreadable)
    except ApiError:
        return {"status": "ok"}
    return {"status": "degraded" if unreadable else "ok"}


async def _pgvector(backend: Backend) -> dict[str, Any]:
    store = backend.stores.pgvector
    if store is None:
        return {"status": "off" if backend.default_mode == "pkl_only" else "degraded"}
    try:
        await asyncio.wait_for(backend.searches.run(store.ping), _PING_SECONDS)
    except (StoreUnavailable, TimeoutError, ApiError) as error:
        logger.warning("pgvector does not answer: %s", error or f"nothing within {_PING_SECONDS:g} s")
        return {"status": "degraded"}
    return {"status": "ok"}
