"""What a request brings, in memory and within limits: pictures, or a JSON object."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from server.errors import ApiError
from server.intake import Incoming

FIELD = "image"
FIELDS = ("images", "image")
"""Where the pictures of a person may stand."""

MAX_PICTURES = 50
_MAX_TOGETHER = 100 * 2**20
# Boundaries, part headers and a few text fields beside the pictures.
_ENVELOPE = 64 * 1024
_MAX_FILES = 8
_MAX_FIELDS = 32
_MAX_JSON = 64 * 1024
_JSON_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a request: what the client calls it, and its bytes."""

    name: str
    data: bytes


class _MemoryParser(MultiPartParser):
    # 0: never rolled over to disk; pictures leave no trace there.
    spool_max_size = 0


async def read_picture(request: Request, incoming: Incoming, max_bytes: int, seconds: float) -> bytes:
    """The bytes of the multipart field ``image``, which must be there within ``seconds``.

    Raises:
        ApiError: 503 too much is held already; 408 the client is too slow; 413 more than ``max_bytes``; 415 not
            multipart; 400 broken multipart, no picture, several pictures.
        ClientDisconnect: the client left before the end.
    """
    too_large = _too_large(max_bytes)
    form = await _parse(request, incoming, max_bytes + _ENVELOPE, too_large, max_files=_MAX_FILES, seconds=seconds)
    try:
        pictures = _pictures(form, (FIELD,))
        files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        if len(files) > 1:
            raise ApiError(400, "too_many_images", f"Send one picture per request; {len(files)} files came.")
        data = await pictures[0].read()
    finally:
        await form.close()
    if len(data) > max_bytes:
        raise too_large
    return data


async def read_pictures(request: Request, incoming: Incoming, max_bytes: int, seconds: float) -> list[Upload]:
    """The files of the multipart fields ``images`` and ``image``, at most :data:`MAX_PICTURES`.

    They must be there within ten times ``seconds``. A picture of more than ``max_bytes`` is handed on, to be refused by
    itself.

    Raises:
        ApiError: 503 too much is held already; 408 the client is too slow; 413 more than 100 MiB together; 415 not
            multipart; 400 broken multipart, no picture, too many.
        ClientDisconnect: the client left before the end.
    """
    limit = max(_MAX_TOGETHER, max_bytes)
    message = f"The pictures have more than {limit // 2**20} MiB together. Send them in several requests."
    too_large = ApiError(413, "upload_too_large", message)
    form = await _parse(
        request, incoming, limit + _ENVELOPE, too_large, max_files=MAX_PICTURES + 1, seconds=10 * seconds
    )
    try:
        pictures = _pictures(form, FIELDS)
        if len(pictures) > MAX_PICTURES:
            raise ApiError(400, "too_many_images", f"Send at most {MAX_PICTURES} pictures per request.")
        return [Upload(_file_name(part, number), await part.read()) for number, part in enumerate(pictures, start=1)]
    finally:
        await form.close()


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object in the body.

    Raises:
        ApiError: 408 the client is too slow; 413 more than 64 KiB; 400 no JSON; 422 JSON that is no object.
        ClientDisconnect: the client left before the end.
    """
    too_large = ApiError(413, "body_too_large", f"The body has more than {_MAX_JSON // 1024} KiB.")
    try:
        async with asyncio.timeout(_JSON_SECONDS):
            body = b"".join([chunk async for chunk in _limited(request, _MAX_JSON, too_large)])
        value = json.loads(body)
    except TimeoutError as error:
        message = f"The body was not there within {_JSON_SECONDS:g} s."
        raise ApiError(408, "upload_timeout", message, {"Connection": "close"}) from error
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "invalid_json", "The body is no JSON. Send a JSON object.") from error
    if not isinstance(value, dict):
        raise ApiError(422, "invalid_body", "The body is no JSON object.")
    return value


async def _parse(
    request: Request, incoming: Incoming, max_body: int, too_large: ApiError, *, max_files: int, seconds: float
) -> FormData:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(415, "not_multipart", f"Send the picture as multipart/form-data, in the field `{FIELD}`.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_body:
        raise too_large
    parser = _MemoryParser(
        request.headers,
        _counted(_limited(request, max_body, too_large), incoming),
        max_files=max_files,
        max_fields=_MAX_FIELDS,
        max_part_size=_ENVELOPE,
    )
    try:
        async with asyncio.timeout(seconds):
            return await parser.parse()
    except TimeoutError as error:
        message = f"The picture was not there within {seconds:g} s. Send a smaller one, or over a faster line."
        raise ApiError(408, "upload_timeout", message, {"Connection": "close"}) from error
    except MultiPartException as error:
        raise ApiError(400, "invalid_multipart", f"The multipart body cannot be read: {error.message}") from error


async def _limited(request: Request, max_body: int, too_large: ApiError) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_body:
            raise too_large
        yield chunk


async def _counted(chunks: AsyncGenerator[bytes, None], incoming: Incoming) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        incoming.add(len(chunk))
        yield chunk


def _pictures(form: FormData, fields: tuple[str, ...]) -> list[UploadFile]:
    files = [(name, part) for name, part in form.multi_items() if isinstance(part, UploadFile)]
    pictures = [part for name, part in files if name in fields]
    if not pictures:
        other = f" It came in the field `{files[0][0][:50]}`." if files else ""
        raise ApiError(400, "missing_image", f"The request has no complete file in the field `{fields[0]}`.{other}")
    return pictures


def _file_name(part: UploadFile, number: int) -> str:
    """What answers call a file; never part of a path."""
    name = (part.filename or "").replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in name if letter.isprintable())[:128] or f"picture {number}"


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(413, "image_too_large", f"The picture is larger than {max_bytes // 2**20} MiB. Send a smaller one.")
