"""``/domains/D/differences`` and ``/domains/D/repair``: where the stores differ, and making one like the other."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from matchers.differences import DIRECTIONS, by_person, differences, repair
from matchers.errors import NoPgvector
from matchers.journal import pending
from server.backend import enter_domain
from server.errors import ApiError
from server.upload import read_json

_MOST = 1000


async def list_differences(request: Request) -> Response:
    """The pictures that the stores do not hold alike, at most 1000 of them, and how many of each person."""
    backend, domain = enter_domain(request, "admin")
    await backend.searches.run(partial(backend.stores.require, domain))
    try:
        found = await backend.searches.run(partial(differences, backend.stores, domain))
    except NoPgvector as error:
        raise _switched_off() from error
    body = {
        "status": "success",
        "domain": domain,
        "total": len(found),
        "pending": pending(backend.stores).get(domain, 0),
        "differences": [
            {"person": one.person, "source": one.source, "kind": one.kind, "pkl": one.pkl, "pgvector": one.pgvector}
            for one in found[:_MOST]
        ],
        "by_person": [{"person": person, **counts} for person, counts in by_person(found).items()],
    }
    return JSONResponse(body)


async def mend(request: Request) -> Response:
    """Make one store like the other."""
    backend, domain = enter_domain(request, "admin")
    body = await read_json(request)
    direction, dry_run = body.get("direction"), body.get("dry_run", False)
    if direction not in DIRECTIONS or not isinstance(dry_run, bool) or body.keys() - {"direction", "dry_run"}:
        message = f'Send {{"direction": "{DIRECTIONS[0]}"}} or "{DIRECTIONS[1]}", and "dry_run": true to look first.'
        raise ApiError(422, "invalid_body", message)
    await backend.searches.run(partial(backend.stores.require, domain))
    try:
        done = await backend.writes.run(partial(repair, backend.stores, domain, direction, dry_run=dry_run))
    except NoPgvector as error:
        raise _switched_off() from error
    return JSONResponse(
        {
            "status": "success",
            "domain": domain,
            "direction": done.direction,
            "dry_run": done.dry_run,
            "copied": len(done.copied),
            "removed": len(done.removed),
        }
    )


def _switched_off() -> ApiError:
    return ApiError(409, "pgvector_off", "There is one store only: VECTOR_DB_ENABLED is false.")
