"""``POST /session``, ``DELETE /session``, ``GET /me``, and what turns a browser's cookie into a caller."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server.backend import backend_of
from server.errors import ApiError
from server.origin import foreign, is_foreign
from server.sessions import SECONDS
from server.tokens import RIGHTS, SESSION_SCHEME, Token

COOKIE = "session"
_MAX_BODY = 4096
_BODY_SECONDS = 30.0


class CookieSession:
    """ASGI middleware: a request with a session cookie and without ``Authorization`` gets the latter from the cookie.

    One that another site made a browser send is refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = MutableHeaders(scope=scope)
            cookie = _cookie(headers) if "authorization" not in headers else None
            if cookie is not None:
                if is_foreign(scope["method"], headers):
                    await foreign().response()(scope, receive, send)
                    return
                headers["authorization"] = f"{SESSION_SCHEME} {cookie}"
        await self.app(scope, receive, send)


async def sign_in(request: Request) -> Response:
    """Body ``{"token": "..."}``: a session cookie, and who that is."""
    backend = backend_of(request)
    if is_foreign(request.method, request.headers):
        raise foreign()
    caller, cookie = backend.tokens.sign_in(await _secret(request))
    response = JSONResponse(_me(caller))
    response.set_cookie(
        COOKIE, cookie, max_age=SECONDS, httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return response


async def sign_out(request: Request) -> Response:
    """Take the cookie back."""
    if is_foreign(request.method, request.headers):
        raise foreign()
    response = JSONResponse({"status": "success"})
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return response


async def me(request: Request) -> Response:
    """Who the caller is and what it may do; ``domains`` is null where it may enter all."""
    return JSONResponse(_me(backend_of(request).tokens.check(request.headers.get("authorization"), right=None)))


def _me(caller: Token) -> dict[str, Any]:
    return {
        "status": "success",
        "name": caller.name,
        "rights": [right for right in RIGHTS if caller.may(right)],
        "domains": None if caller.domains is None else sorted(caller.domains),
    }


async def _secret(request: Request) -> str:
    wrong = ApiError(422, "invalid_body", 'Send the token as JSON: {"token": "..."}.')
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MAX_BODY:
                    raise wrong
    except TimeoutError as error:
        message = f"The token was not there within {_BODY_SECONDS:g} s."
        raise ApiError(408, "upload_timeout", message, {"Connection": "close"}) from error
    try:
        token = json.loads(body)["token"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise wrong from None
    if not isinstance(token, str) or not token.strip():
        raise wrong
    return token.strip()


def _cookie(headers: Headers) -> str | None:
    return cookie_parser(headers.get("cookie", "")).get(COOKIE) or None


async def session(request: Request) -> Response:
    """``POST`` signs in, ``DELETE`` signs out; one route, so that ``Allow`` names both."""
    return await (sign_out if request.method == "DELETE" else sign_in)(request)
