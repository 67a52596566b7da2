"""Whatever goes wrong, as ``{"status": "error", "error": {"code", "message"}}``."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from matchers.errors import InvalidName, MatcherError, StoreUnavailable, UnknownDomain
from matchers.languages import UnknownLanguage
from runtime.errors import ImageError

logger = logging.getLogger(__name__)

_IMAGE_STATUS: Mapping[str, int] = {
    "image_empty": 400,
    "image_too_large": 413,
    "unsupported_format": 415,
    "image_unreadable": 422,
}
_HTTP_CODES: Mapping[int, tuple[str, str]] = {
    404: ("not_found", "There is nothing at this address. GET /openapi.json lists what there is."),
    405: ("method_not_allowed", "This address does not take this method. GET /openapi.json lists what there is."),
}


class ApiError(Exception):
    """An answer other than 200.

    Attributes:
        status: HTTP status.
        code: machine-readable reason.
        message: what happened and what to do, for a person.
        headers: HTTP headers to add.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """The error as it is sent."""
        body = {"status": "error", "error": {"code": self.code, "message": self.message}}
        return JSONResponse(body, self.status, self.headers)


def api_error(error: Exception) -> ApiError:
    """What a client is told about ``error``. Causes that lie in the server are logged here, not sent."""
    match error:
        case ApiError():
            return error
        case ImageError():
            return ApiError(_IMAGE_STATUS[error.code], error.code, str(error))
        case MatcherError():
            return _matcher_error(error)
        case HTTPException():
            code, message = _HTTP_CODES.get(error.status_code, ("http_error", error.detail))
            return ApiError(error.status_code, code, message, error.headers)
    logger.error("unexpected failure", exc_info=error)
    return ApiError(500, "internal_error", "The server failed in an unexpected way; its log says why.")


def _matcher_error(error: MatcherError) -> ApiError:
    match error:
        case UnknownDomain():
            return ApiError(404, "unknown_domain", f"{error}. GET /domains lists the domains that there are.")
        case UnknownLanguage():
            return ApiError(422, "unknown_language", str(error))
        case InvalidName():
            return ApiError(422, "invalid_name", str(error))
        case StoreUnavailable():
            logger.error("no store could answer: %s", error)
            message = "The galleries cannot be searched at present. Try again in some seconds."
            return ApiError(503, "store_unavailable", message, {"Retry-After": "2"})
    logger.error("a gallery cannot be used: %s", error)
    return ApiError(503, "gallery_unusable", "The domain's gallery cannot be read; the server's log says why.")


async def answer_error(_request: Request, error: Exception) -> JSONResponse:
    """Exception handler for everything that the routes raise."""
    return api_error(error).response()


EXPECTED = (ApiError, HTTPException, ImageError, MatcherError)
