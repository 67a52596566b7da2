"""A gallery file in a request: it goes to the disk as it comes, where nobody else sees it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from matchers.importing import GalleryFile, file_name
from server.errors import ApiError

FIELD = "gallery"
MAX_BYTES = 4 * 2**30
"""More is brought in by ``python -m matchers import`` on the server."""

# Boundaries and headers beside the file.
_ENVELOPE = 64 * 1024
_MAX_HEADER = 16 * 1024
_MAX_HEADERS = 16


class _Parser:
    """Takes the file of the field ``gallery`` out of a multipart body."""

    def __init__(self, boundary: bytes, check: Callable[[str], None]) -> None:
        """``check``: called with the file's name before its content is taken.

        Raises:
            ApiError: no parts can be told by this boundary.
        """
        self._check = check
        self._name: str | None = None
        self._inside = self._ended = False
        self._data: list[bytes] = []
        self._key = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        callbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._add_key,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._enter,
            "on_part_data": self._take,
            "on_part_end": self._leave,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        except FormParserError as error:
            raise ApiError(400, "invalid_multipart", f"The multipart body cannot be read: {error}.") from error

    def feed(self, chunk: bytes) -> bytes:
        """What of ``chunk`` belongs to the file.

        Raises:
            ApiError: the body is broken or holds several galleries, or the file's name was refused.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise ApiError(400, "invalid_multipart", "The multipart body cannot be read.") from error
        data, self._data = b"".join(self._data), []
        return data

    def name(self) -> str:
        """What the client calls the file, once all of the body was fed.

        Raises:
            ApiError: no complete file came.
        """
        if self._name is None or not self._ended:
            raise ApiError(400, "missing_gallery", f"The request has no complete file in the field `{FIELD}`.")
        return self._name

    def _begin(self) -> None:
        self._headers = {}

    def _add_key(self, data: bytes, start: int, end: int) -> None:
        self._key += data[start:end]
        self._check_length()

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_length()

    def _check_length(self) -> None:
        if len(self._key) + len(self._value) > _MAX_HEADER or len(self._headers) > _MAX_HEADERS:
            raise ApiError(400, "invalid_multipart", "The multipart body cannot be read: a part has too long a header.")

    def _end_header(self) -> None:
        self._headers[self._key.lower()] = self._value
        self._key = self._value = b""

    def _enter(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._inside = options.get(b"name") == FIELD.encode() and b"filename" in options
        if self._inside:
            if self._name is not None:
                raise ApiError(400, "too_many_galleries", "Send one gallery per request.")
            self._name = file_name(options[b"filename"].decode("utf-8", "replace"))
            self._check(self._name)

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._data.append(data[start:end])

    def _leave(self) -> None:
        self._ended = self._ended or self._inside
        self._inside = False


async def receive_gallery(
    request: Request, folder: Path, seconds: float, check: Callable[[str], None], max_bytes: int = MAX_BYTES
) -> GalleryFile:
    """The file of the multipart field ``gallery``, in a file without a name under ``folder`` that is gone once closed.

    Args:
        seconds: how long the client may pause.
        check: called with the file's name before its content is taken.

    Raises:
        ApiError: 408 the client pauses too long; 413 more than ``max_bytes``; 415 not multipart; 400 broken multipart,
            no gallery, several; 503 the disk is full.
        ClientDisconnect: the client left before the end.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise ApiError(415, "not_multipart", f"Send the gallery as multipart/form-data, in the field `{FIELD}`.")
    parser = _Parser(options[b"boundary"], check)
    try:
        file = await run_in_threadpool(_new_file, folder)
        try:
            async with aclosing(_chunks(request, seconds, max_bytes)) as chunks:
                async for chunk in chunks:
                    if data := parser.feed(chunk):
                        await run_in_threadpool(file.write, data)
            await run_in_threadpool(file.flush)
            return GalleryFile(file, parser.name())
        except BaseException:
            file.close()
            raise
    except OSError as error:
        raise ApiError(503, "gallery_not_kept", f"DATA_DIR cannot be written: {error.strerror}.") from error


async def _chunks(request: Request, seconds: float, max_bytes: int) -> AsyncGenerator[bytes, None]:
    message = (
        f"The gallery is larger than {max_bytes // 2**20} MiB. Bring it in on the server: "
        "`python -m matchers import --domain D FILE`."
    )
    too_large = ApiError(413, "gallery_too_large", message)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes + _ENVELOPE:
        raise too_large
    received = 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(seconds):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            message = f"Nothing came for {seconds:g} s. Send the gallery again."
            raise ApiError(408, "upload_timeout", message, {"Connection": "close"}) from error
        received += len(chunk)
        if received > max_bytes + _ENVELOPE:
            raise too_large
        yield chunk


def _new_file(folder: Path) -> IO[bytes]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder)
