"""``GET /domains/D/comparisons``: what the answers of dual mode said, and whether the gates hold."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from matchers.recording.report import as_json, moment, report
from server.backend import Backend, enter_domain
from server.errors import ApiError

_MAX_LIMIT = 1000
_MAX_BUCKETS = 500


async def comparisons(request: Request) -> Response:
    """Figures, gates, their course over time, and each disagreement with its reason. Made to be asked for often."""
    backend, domain = enter_domain(request, "admin")
    limit, buckets = _number(request, "limit", 50, 0, _MAX_LIMIT), _number(request, "buckets", 60, 1, _MAX_BUCKETS)
    since, until = _moment(request, "since"), _moment(request, "until")
    await backend.searches.run(partial(backend.stores.require, domain))
    if backend.stores.pgvector is None and not backend.stores.pgvector_error:
        raise ApiError(409, "pgvector_off", "There is one store only: VECTOR_DB_ENABLED is false.")
    asked = (request.query_params.get("since"), request.query_params.get("until"))
    work = partial(_report, backend, domain, asked, (since, until), (limit, buckets))
    body = await backend.searches.run(work)
    return JSONResponse({"status": "success", **body})


def _report(
    backend: Backend,
    domain: str,
    asked: tuple[str | None, str | None],
    span: tuple[datetime | None, datetime | None],
    size: tuple[int, int],
) -> dict[str, Any]:
    # Read before all else: what is forgotten meanwhile makes this answer one of the time before.
    forgotten = backend.stores.comparisons.forgotten()
    judge = backend.judge()
    window = judge.window(domain, *span)
    # A domain that was set to dual anew starts anew.
    state = forgotten, None if asked[0] else window.since
    key = ("comparisons", domain, *asked, *size)
    return backend.recent.get(key, lambda: as_json(report(judge, window, *size)), state)


def _moment(request: Request, name: str) -> datetime | None:
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        return moment(text)
    except ValueError as error:
        raise ApiError(422, "invalid_moment", f"`{name}`: {error}.") from error


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or not least <= int(text) <= most:
        raise ApiError(422, "invalid_number", f"`{name}` is a number from {least} to {most}.")
    return int(text)
