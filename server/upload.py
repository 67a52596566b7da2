"""The picture of a multipart request, in memory and within limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from server.errors import ApiError

FIELD = "image"
# Boundaries, part headers and a few text fields beside the picture.
_ENVELOPE = 64 * 1024
_MAX_FILES = 8
_MAX_FIELDS = 32


class _MemoryParser(MultiPartParser):
    # 0: never rolled over to disk; pictures leave no trace there.
    spool_max_size = 0


async def read_picture(request: Request, max_bytes: int, seconds: float) -> bytes:
    """The bytes of the multipart field ``image``, which must be there within ``seconds``.

    Raises:
        ApiError: 408 the client is too slow; 413 more than ``max_bytes``; 415 not multipart; 400 broken multipart, no
            picture, several pictures.
        ClientDisconnect: the client left before the end.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(415, "not_multipart", f"Send the picture as multipart/form-data, in the field `{FIELD}`.")
    try:
        async with asyncio.timeout(seconds):
            form = await _parse(request, max_bytes + _ENVELOPE, max_bytes)
    except TimeoutError as error:
        message = f"The picture was not there within {seconds:g} s. Send a smaller one, or over a faster line."
        raise ApiError(408, "upload_timeout", message, {"Connection": "close"}) from error
    try:
        return await _only_picture(form, max_bytes)
    finally:
        await form.close()


async def _parse(request: Request, max_body: int, max_bytes: int) -> FormData:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_body:
        raise _too_large(max_bytes)
    parser = _MemoryParser(
        request.headers,
        _limited(request, max_body, max_bytes),
        max_files=_MAX_FILES,
        max_fields=_MAX_FIELDS,
        max_part_size=_ENVELOPE,
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise ApiError(400, "invalid_multipart", f"The multipart body cannot be read: {error.message}") from error


async def _limited(request: Request, max_body: int, max_bytes: int) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_body:
            raise _too_large(max_bytes)
        yield chunk


async def _only_picture(form: FormData, max_bytes: int) -> bytes:
    files = [(name, part) for name, part in form.multi_items() if isinstance(part, UploadFile)]
    pictures = [part for name, part in files if name == FIELD]
    if not pictures:
        other = f" It came in the field `{files[0][0][:50]}`." if files else ""
        raise ApiError(400, "missing_image", f"The request has no complete file in the field `{FIELD}`.{other}")
    if len(files) > 1:
        raise ApiError(400, "too_many_images", f"Send one picture per request; {len(files)} files came.")
    data = await pictures[0].read()
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(413, "image_too_large", f"The picture is larger than {max_bytes // 2**20} MiB. Send a smaller one.")
