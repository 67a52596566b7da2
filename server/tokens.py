"""Who may ask."""

from __future__ import annotations

import hashlib
import hmac

from server.errors import ApiError


class Tokens:
    """The tokens of ``API_TOKENS``; only their sha256 digests are kept."""

    def __init__(self, listed: str) -> None:
        """``listed``: comma-separated tokens, possibly none."""
        self._digests = [_digest(token.strip()) for token in listed.split(",") if token.strip()]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, authorization: str | None) -> None:
        """Let pass a request whose ``Authorization`` header holds a token, bare or after ``Bearer``.

        Every token is compared in constant time. Without any token everybody passes.

        Raises:
            ApiError: 401, the header is missing or holds no token of ours.
        """
        if not self._digests:
            return
        if authorization is None:
            raise _refused("This server asks for a token. Send it in the header `Authorization: TOKEN`.")
        given = _digest(_bare(authorization))
        if not sum(hmac.compare_digest(given, digest) for digest in self._digests):
            raise _refused("The token in the header `Authorization` is not one of this server's.")


def _bare(authorization: str) -> str:
    scheme, _, rest = authorization.strip().partition(" ")
    return rest.strip() if rest and scheme.casefold() == "bearer" else authorization.strip()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _refused(message: str) -> ApiError:
    return ApiError(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})
