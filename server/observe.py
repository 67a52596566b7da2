"""Around every request: an id, one line in the log, security headers, and an answer whatever happens."""

from __future__ import annotations

import logging
import re
import time
import uuid
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import api_error

logger = logging.getLogger("server.requests")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PERSON = re.compile(r"(.*?/people/).+?(/faces/[0-9a-f]{24}(?:/thumbnail)?)?", re.IGNORECASE | re.DOTALL)
_PLAIN = "/:@!$&'()*+,;=~"
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer that does not set them otherwise."""


class Observe:
    """ASGI middleware. A route may put ``mode``, ``caller`` (a token's name) and ``faces`` (how many) into
    ``scope["state"]`` for the log line."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        status = 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, observed)
        except ClientDisconnect:
            logger.info("%s the client left before the end of its request", request_id)
        except Exception as error:
            response = api_error(error).response()
            if status == 0:
                await response(scope, receive, observed)
        finally:
            _log(scope, request_id, status, (time.perf_counter() - start) * 1000)


def _log(scope: Scope, request_id: str, status: int, milliseconds: float) -> None:
    """One line; people's names and the query stay out of it, and so does everything that the client sent as a body."""
    path = _told(scope["path"])
    state = scope.get("state", {})
    noted = {name: state[name] for name in ("mode", "caller", "faces") if name in state}
    fields = {
        "request_id": request_id,
        "method": scope["method"],
        "path": path,
        "status": status or None,
        "milliseconds": round(milliseconds, 1),
        **noted,
    }
    details = "".join(f" {name}={value}" for name, value in noted.items())
    logger.info(
        "%s %s %s %s %.1fms%s",
        request_id,
        scope["method"],
        path,
        status or "-",
        milliseconds,
        details,
        extra={"fields": fields},
    )


def _told(path: str) -> str:
    """A decoded address as the log has it: however it was spelt, it names nobody."""
    named = _PERSON.fullmatch(path)
    return quote(path if named is None else f"{named[1]}-{named[2] or ''}", _PLAIN)
