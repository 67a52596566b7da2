"""Around every request: an id, one line in the log, security headers, and an answer whatever happens."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import api_error

logger = logging.getLogger("server.requests")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Observe:
    """ASGI middleware. A route may put ``mode`` into ``scope["state"]`` for the log line."""

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
                for name, value in _SECURITY.items():
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
            logger.info(
                "%s %s %s %s %.1fms mode=%s",
                request_id,
                scope["method"],
                scope.get("raw_path", scope["path"].encode()).decode("ascii", "backslashreplace"),
                status or "-",
                (time.perf_counter() - start) * 1000,
                scope.get("state", {}).get("mode", "-"),
            )
