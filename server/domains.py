"""``GET /domains``: which galleries there are."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from matchers.base import GalleryStore
from matchers.errors import MatcherError
from server.backend import Backend, backend_of

logger = logging.getLogger(__name__)


async def domains(request: Request) -> Response:
    """Every domain with its mode and the number of faces in each store; null for a store that does not answer."""
    backend = backend_of(request)
    caller = backend.tokens.check(request.headers.get("authorization"))
    listed = await backend.searches.run(lambda: _list(backend))
    return JSONResponse({"status": "success", "domains": [row for row in listed if caller.may_enter(row["domain"])]})


def _list(backend: Backend) -> list[dict[str, Any]]:
    pkl = _counts(backend.stores.pkl)
    pgvector = _counts(backend.stores.pgvector)
    names = sorted({*(pkl or {}), *(pgvector or {})})
    return [
        {
            "domain": name,
            "mode": backend.mode(name),
            "faces": {
                "pkl": None if pkl is None else pkl.get(name, 0),
                "pgvector": None if pgvector is None else pgvector.get(name, 0),
            },
        }
        for name in names
    ]


def _counts(store: GalleryStore | None) -> Mapping[str, int] | None:
    if store is None:
        return None
    try:
        return {domain: store.count(domain) for domain in store.domains()}
    except MatcherError as error:
        logger.warning("a store could not be counted: %s", error)
        return None
