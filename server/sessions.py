"""Signing in from a browser: a signed cookie in place of the token.

The page never keeps a token: it sends it once and gets a cookie that scripts cannot read (HttpOnly), that no other site
can make a browser send (SameSite=Strict, and ``server.origin``), and that reaches pictures and event streams, which
cannot carry headers. The cookie holds the token's name and an end, signed with a key of the server and with the token's
digest. So any worker can check it, nothing is stored per session, neither the cookie nor the token file alone opens
anything, and it ends when the token is taken away or given a new secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

SECONDS: Final = 12 * 3600
_KEY_BYTES: Final = 32
_MAX_LENGTH: Final = 512


class SessionKey:
    """Signs and reads session cookies."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        """``key``: known to every worker, to nobody else; ``clock``: seconds since 1970."""
        self._key = key
        self._clock = clock

    def issue(self, name: str, digest: bytes) -> str:
        """A cookie for the token ``name`` with the sha256 ``digest``; good for :data:`SECONDS`."""
        end = int(self._clock()) + SECONDS
        payload = f"{end}.{name}".encode()
        return f"{_text(payload)}.{_text(self._signature(payload, digest))}"

    def name(self, cookie: str) -> str | None:
        """The token that a cookie claims to stand for, not yet believed; None when it is over or is no cookie."""
        payload = _part(cookie, 0)
        end, _, name = (payload or b"").decode("utf-8", "replace").partition(".")
        if not end.isascii() or not end.isdecimal() or int(end) <= self._clock():
            return None
        return name

    def holds(self, cookie: str, digest: bytes) -> bool:
        """Whether the cookie was issued here for a token with the sha256 ``digest``."""
        payload, signature = _part(cookie, 0), _part(cookie, 1)
        if payload is None or signature is None:
            return False
        return hmac.compare_digest(signature, self._signature(payload, digest))

    def _signature(self, payload: bytes, digest: bytes) -> bytes:
        return hmac.digest(self._key, digest + payload, hashlib.sha256)


def session_key(folder: Path) -> SessionKey:
    """The key in ``folder/session.key``, which is made on first use, for its owner only.

    Workers that start at the same time take the same one: a key is linked into place whole, and only where none is.

    Raises:
        OSError: the file can be neither read nor made.
    """
    path = folder / "session.key"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f".session.key.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
            _link(fresh, path)
        finally:
            fresh.unlink()
    key = path.read_bytes()
    if len(key) < _KEY_BYTES:
        raise OSError(f"{path} is no session key. Delete it; a new one is made at the next start.")
    return SessionKey(key)


def _link(fresh: Path, path: Path) -> None:
    try:
        path.hardlink_to(fresh)
    except FileExistsError:
        return  # another worker was first


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _part(cookie: str, index: int) -> bytes | None:
    parts = cookie.split(".")
    if len(cookie) > _MAX_LENGTH or len(parts) != 2:
        return None
    try:
        return base64.b64decode(parts[index] + "=" * (-len(parts[index]) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
