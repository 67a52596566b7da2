"""What a browser sees: a short page and the API's description."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

_INDEX = files("server").joinpath("index.html").read_text("utf-8")
_OPENAPI = files("server").joinpath("openapi.json").read_bytes()


def _policy(page: str) -> str:
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256((style.group(1) if style else "").encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; base-uri 'none'"


_INDEX_HEADERS = {"Content-Security-Policy": _policy(_INDEX)}


async def index(_request: Request) -> Response:
    """A page that says how to ask."""
    return Response(_INDEX, media_type="text/html", headers=_INDEX_HEADERS)


async def openapi(_request: Request) -> Response:
    """The endpoints as an OpenAPI 3.1 document."""
    return Response(_OPENAPI, media_type="application/json")
