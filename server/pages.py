"""What a browser gets: the page, its files, the demo picture, and the API's description."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from matchers.languages import Language, Languages, UnknownLanguage
from server.backend import backend_of
from server.errors import ApiError

_OPENAPI = files("server").joinpath("openapi.json").read_bytes()

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding, Accept-Language, Cookie, Accept",
}


async def page(request: Request) -> Response:
    """The page, whichever of its addresses was asked for."""
    backend = backend_of(request)
    language = _language(request, backend.languages)
    return backend.pages.page(language, backend.facts()).response(
        request, {**_HEADERS, "Content-Language": language.tag}
    )


async def static(request: Request) -> Response:
    """One of the page's files."""
    assets = backend_of(request).pages.assets
    found = assets.find(request.path_params["path"])
    if found is None:
        raise ApiError(404, "not_found", "The page has no such file. Load the page again.")
    return found.response(request, {"Cache-Control": assets.cache_control(request.path_params["version"])})


async def demo(request: Request) -> Response:
    """The picture from which the demo domain was made."""
    path = backend_of(request).pages.demo
    if path is None or not path.is_file():
        raise ApiError(404, "no_demo", "The package insightface, which ships the demo picture, is not installed.")
    return FileResponse(path, media_type="image/jpeg", headers={"Cache-Control": "no-cache"})


async def openapi(_request: Request) -> Response:
    """The endpoints as an OpenAPI 3.1 document."""
    return Response(_OPENAPI, media_type="application/json")


def wants_page(request: Request) -> bool:
    """Whether a browser is about to show the answer to a person; programs ask for JSON, or for anything."""
    return "text/html" in request.headers.get("accept", "")


def _language(request: Request, languages: Languages) -> Language:
    chosen = request.cookies.get("language")
    try:
        return languages.find(chosen) if chosen else languages.preferred(request.headers.get("accept-language"))
    except UnknownLanguage:
        return languages.preferred(request.headers.get("accept-language"))


PAGES = (
    Route("/", page),
    Route("/agreement", page),
    Route("/docs", page),
    Route("/galleries", page),
    Route("/static/{version}/{path:path}", static),
    Route("/demo.jpg", demo),
)
