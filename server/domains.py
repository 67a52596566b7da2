"""``/domains`` and ``/domains/D``: which galleries there are, and how they are made and deleted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from matchers.base import GalleryStore
from matchers.errors import MatcherError, UnknownDomain
from matchers.journal import Written, write_both, writing
from matchers.people import census
from server.backend import Backend, backend_of, enter_domain

logger = logging.getLogger(__name__)


async def domains(request: Request) -> Response:
    """Every domain with its mode and the number of faces in each store; null for a store that does not answer."""
    backend = backend_of(request)
    caller = backend.tokens.check(request.headers.get("authorization"))
    listed = await backend.searches.run(lambda: _list(backend))
    return JSONResponse({"status": "success", "domains": [row for row in listed if caller.may_enter(row["domain"])]})


class Domain(HTTPEndpoint):
    """``/domains/D``."""

    async def get(self, request: Request) -> Response:
        """What the domain holds and how it is searched."""
        backend, domain = enter_domain(request)
        return JSONResponse(await backend.searches.run(lambda: _describe(backend, domain)))

    async def post(self, request: Request) -> Response:
        """Make an empty domain: 201, or 200 when it is there already."""
        backend, domain = enter_domain(request, "admin")
        made = await backend.writes.run(lambda: _make(backend, domain))
        body = await backend.searches.run(lambda: _describe(backend, domain))
        return JSONResponse(body, 201 if made else 200)

    async def delete(self, request: Request) -> Response:
        """Delete the domain with everybody in it, in both stores."""
        backend, domain = enter_domain(request, "admin")
        written = await backend.writes.run(lambda: _delete(backend, domain))
        body = {"status": "success", "domain": domain, "pending": ["pgvector"] if written.pgvector_error else []}
        return JSONResponse(body)


def _describe(backend: Backend, domain: str) -> dict[str, Any]:
    everybody = census(backend.stores, domain)
    counts = Counter(store for faces in everybody.people.values() for face in faces for store in face.stores)
    return {
        "status": "success",
        "domain": domain,
        "mode": backend.mode(domain),
        "threshold": backend.threshold(domain),
        "people": len(everybody.people),
        "faces": {
            "pkl": counts["pkl"],
            "pgvector": None
            if backend.stores.pgvector is None or "pgvector" in everybody.unavailable
            else counts["pgvector"],
        },
    }


def _make(backend: Backend, domain: str) -> bool:
    try:
        backend.stores.require(domain)
    except UnknownDomain:
        write_both(backend.stores, domain, (), ())
        return True
    return False


def _delete(backend: Backend, domain: str) -> Written:
    backend.stores.require(domain)
    with writing(backend.stores, domain) as writer:
        written = writer.drop()
    backend.preferences.drop(domain)
    return written


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
