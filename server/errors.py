"""Whatever goes wrong, as ``{"status": "error", "error": {"code", "message"}}``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from matchers.arrow import NoPyarrow
from matchers.errors import (
    GalleryFileError,
    GalleryMismatch,
    InvalidName,
    MatcherError,
    PersonExists,
    StoreUnavailable,
    UnknownDomain,
    UnknownFace,
    UnknownPerson,
)
from matchers.formats import UnknownFormat
from matchers.languages import UnknownLanguage
from runtime.errors import ImageError

logger = logging.getLogger(__name__)

_IMAGE_STATUS: Mapping[str, int] = {
    "image_empty": 400,
    "image_too_large": 413,
    "unsupported_format": 415,
    "image_unreadable": 422,
}
_MATCHER_ERRORS: Mapping[type[MatcherError], tuple[int, str, str]] = {
    UnknownDomain: (404, "unknown_domain", ". GET /domains lists the domains that there are."),
    UnknownPerson: (404, "unknown_person", ". GET /domains/DOMAIN/people lists everybody."),
    UnknownFace: (404, "unknown_face", ". GET /domains/DOMAIN/people/PERSON lists the faces."),
    PersonExists: (409, "person_exists", ". Send `merge: true` to make one person of the two."),
    UnknownLanguage: (422, "unknown_language", ""),
    InvalidName: (422, "invalid_name", ""),
    UnknownFormat: (422, "unknown_format", ""),
    NoPyarrow: (422, "pyarrow_missing", ""),
    GalleryMismatch: (422, "gallery_mismatch", ""),
    GalleryFileError: (422, "gallery_unreadable", ""),
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
        details: further fields of ``error``.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.details = dict(details or {})

    def response(self) -> JSONResponse:
        """The error as it is sent."""
        body = {"status": "error", "error": {"code": self.code, "message": self.message, **self.details}}
        return JSONResponse(body, self.status, self.headers)


def overloaded() -> ApiError:
    """The server has as much to do as it takes."""
    message = "More requests wait than this server takes. Try again in a second."
    return ApiError(503, "overloaded", message, {"Retry-After": "1"})


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
    for kind, (status, code, hint) in _MATCHER_ERRORS.items():
        if isinstance(error, kind):
            details = {"differs": list(error.traits)} if isinstance(error, GalleryMismatch) else None
            return ApiError(status, code, f"{error}{hint}", details=details)
    if isinstance(error, StoreUnavailable):
        logger.error("no store could answer: %s", error)
        message = "The galleries cannot be searched or written at present. Try again in some seconds."
        return ApiError(503, "store_unavailable", message, {"Retry-After": "2"})
    logger.error("a gallery cannot be used: %s", error)
    return ApiError(503, "gallery_unusable", "The domain's gallery cannot be read; the server's log says why.")


async def answer_error(_request: Request, error: Exception) -> JSONResponse:
    """Exception handler for everything that the routes raise."""
    return api_error(error).response()


EXPECTED = (ApiError, HTTPException, ImageError, MatcherError)
