"""The page's files: read once, sent compressed, and kept by browsers until their content changes."""

from __future__ import annotations

import gzip
import hashlib
import json
import mimetypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from matchers.languages import Language, Languages

_FOLDER: Final = files("server").joinpath("static")
_FOREVER: Final = "public, max-age=31536000, immutable"
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent.

    Attributes:
        body: its bytes.
        packed: the same, gzip.
        media_type: what it is.
        etag: changes with the content.
    """

    body: bytes
    packed: bytes
    media_type: str
    etag: str

    def response(self, request: Request, headers: Mapping[str, str]) -> Response:
        """The file, packed where the client takes that; 304 when the client has it."""
        told = {"ETag": self.etag, "Vary": "Accept-Encoding", **headers}
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if self.etag in known:
            return Response(status_code=304, headers=told)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(self.packed, headers={**told, "Content-Encoding": "gzip"}, media_type=self.media_type)
        return Response(self.body, headers=told, media_type=self.media_type)


def asset(body: bytes, media_type: str) -> Asset:
    """``body`` ready to be sent."""
    return Asset(body, gzip.compress(body, 9, mtime=0), media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


class Assets:
    """Every file under ``server/static`` and, as ``messages/<code>.json``, the messages of each language.

    Attributes:
        version: part of every address, changes with any of the files: a file may be kept for ever, and the relative
            imports of a module stay within its version.
    """

    def __init__(self, languages: Languages) -> None:
        self._files = {path: asset(entry.read_bytes(), _media_type(path)) for path, entry in _walk(_FOLDER, "")}
        self._languages = {f"messages/{language.code}.json": language for language in languages}
        self._messages: dict[str, Asset] = {}
        digest = hashlib.sha256()
        for path in sorted(self._files):
            digest.update(f"{path}\0{self._files[path].etag}\0".encode())
        for language in languages:
            digest.update(language.catalog.read_bytes() if language.catalog is not None else b"")
        self.version = digest.hexdigest()[:12]

    def paths(self, suffix: str) -> list[str]:
        """Files whose names end with ``suffix``, sorted."""
        return sorted(path for path in self._files if path.endswith(suffix))

    def address(self, path: str) -> str:
        """Where a browser gets the file ``path``."""
        return f"/static/{self.version}/{path}"

    def text(self, path: str) -> str:
        """The file ``path``, which must be there."""
        return self._files[path].body.decode()

    def find(self, path: str) -> Asset | None:
        """The file ``path``, None when there is none."""
        if path in self._languages and path not in self._messages:
            messages = json.dumps(_messages(self._languages[path]), ensure_ascii=False, separators=(",", ":"))
            self._messages[path] = asset(messages.encode(), "application/json")
        return self._messages.get(path) or self._files.get(path)

    def cache_control(self, version: str) -> str:
        """How long a file that was asked for as part of ``version`` may be kept: another version's only until it is
        asked for again, since a worker of another release may have written its address."""
        return _FOREVER if version == self.version else "no-cache"


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif not entry.name.startswith("."):
            yield f"{prefix}{entry.name}", entry


def _media_type(path: str) -> str:
    suffix = path[path.rfind(".") :]
    return _TYPES.get(suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"


def _messages(language: Language) -> dict[str, Any]:
    """What the page's ``i18n.js`` reads: contexts are parted from messages as gettext's own files do it, by U+0004."""
    return {
        "code": language.code,
        "tag": language.tag,
        "plurals": language.plural_order,
        "messages": {
            message if context is None else f"{context}\u0004{message}": text
            for (context, message), text in language.messages.items()
        },
    }
