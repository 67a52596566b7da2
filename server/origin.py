"""Did one of our own pages send this request, or the page of somebody else?"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers

from server.errors import ApiError

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def is_foreign(method: str, headers: Headers) -> bool:
    """Whether a browser sent a changing request here for a page of another origin (cross-site request forgery).

    Browsers say so in ``Sec-Fetch-Site`` and ``Origin``, which pages cannot forge. Programs send neither.
    """
    if method in _SAFE:
        return False
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


def foreign() -> ApiError:
    """What a request of another site's page gets."""
    return ApiError(403, "cross_site", "A page of another site sent this request. Open the service's own page.")
