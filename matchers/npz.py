"""DeepFace's ``.npz`` galleries (0.0.102 and later), read as data: no pickle, no decompression, no evaluated headers.

``numpy.savez`` writes a ZIP file of arrays without compression (NEP 1 describes an array's header). What DeepFace puts
in is in its ``modules/recognition.py``: the columns of its records, and ``has_embedding``.
"""

from __future__ import annotations

import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from matchers.base import GalleryFace
from matchers.errors import GalleryError
from matchers.records import Records, check_dimension, clean_digest, unit_rows

_TEXTS: Final = ("identity", "hash")
_PIXELS: Final = ("target_x", "target_y", "target_w", "target_h")
_COLUMNS: Final = (*_TEXTS, "embedding", "has_embedding", *_PIXELS)
_MAX_MEMBERS: Final = 64
_BLOCK: Final = 4096

# PKWARE's APPNOTE.TXT, 4.3.7 (local header) and 4.5.3 (sizes of large files).
_MEMBER: Final = b"PK\x03\x04"
_LIST: Final = b"PK\x01\x02"
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_LARGE: Final = struct.Struct("<2H2Q")
_UTF8: Final = 0x800
_LAST_CHARACTER: Final = 0x10FFFF

_MAGIC: Final = b"\x93NUMPY"
_HEADER: Final = re.compile(
    rb"\{'descr': '(?P<type>[<|=]?(?:f[48]|[iu][1248]|b1|U\d{1,5}))', 'fortran_order': False, "
    rb"'shape': \((?P<shape>\d{1,12}, ?(?:\d{1,12})?)\), \} *\n"
)


def read_npz(file: IO[bytes]) -> Records:
    """The records of a ``.npz`` file.

    Raises:
        GalleryError: it is damaged or hostile, or holds other arrays than DeepFace's.
    """
    try:
        most = os.fstat(file.fileno()).st_size
        columns = {name: _array(name, data, most) for name, data in _members(file)}
    except (OSError, OverflowError) as error:
        raise GalleryError("it is a damaged .npz file") from error
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise GalleryError(f"it holds no {', '.join(missing)}: it is no gallery of DeepFace")
    return _records(columns)


def write_npz(file: IO[bytes], records: Iterable[tuple[str, str, GalleryFace]], dimension: int) -> None:
    """The ``.npz`` file that DeepFace would write; ``records``: identity, hash and face."""
    listed = list(records)
    boxes = np.array([face.box for _, _, face in listed], np.int64).reshape(-1, 4)
    embeddings = np.empty((len(listed), dimension), np.float64)
    for row, (_, _, face) in zip(embeddings, listed, strict=True):
        row[:] = face.embedding
    np.savez(
        file,
        allow_pickle=False,
        embedding=embeddings,
        has_embedding=np.ones(len(listed), bool),
        identity=np.array([identity for identity, _, _ in listed], np.str_),
        hash=np.array([digest for _, digest, _ in listed], np.str_),
        **{name: boxes[:, index] for index, name in enumerate(_PIXELS)},
    )


def _members(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each column, in the file's order.

    Members are read one after the other by their own headers, so that no list at the end of the file can make them
    many, large or overlapping.
    """
    seen = set()
    for _ in range(_MAX_MEMBERS):
        header = file.read(_LOCAL.size)
        if header[:4] == _LIST:
            return
        if len(header) < _LOCAL.size or header[:4] != _MEMBER:
            break
        _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(header)
        name = file.read(name_length).decode("latin1").removesuffix(".npy")
        packed, size = _sizes(file.read(extra_length), packed, size)
        if flags & ~_UTF8 or method != zipfile.ZIP_STORED or packed != size:
            raise GalleryError("it is compressed, encrypted or streamed, which DeepFace's files never are")
        if size > _left(file):
            raise GalleryError("it is cut off, or says a length that it does not have")
        if name not in _COLUMNS or name in seen:
            file.seek(size, os.SEEK_CUR)
            continue
        seen.add(name)
        data = file.read(size)
        if zlib.crc32(data) != crc:
            raise GalleryError(f"its column {name!r} is damaged: the checksum differs")
        yield name, data
    raise GalleryError("it is no .npz file, or a damaged one")


def _sizes(extra: bytes, packed: int, size: int) -> tuple[int, int]:
    """Sizes of a member, which numpy always writes in the form for large files."""
    if packed == size == 0xFFFFFFFF and len(extra) == _LARGE.size:
        kind, length, size, packed = _LARGE.unpack(extra)
        if (kind, length) != (1, 16):
            raise GalleryError("it is a damaged .npz file")
    return packed, size


def _left(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size - file.tell()


def _array(name: str, data: bytes, most: int) -> npt.NDArray[Any]:
    """``most``: how many empty texts a column may have, since other columns hold a byte and more for each."""
    if data[:6] != _MAGIC or data[6:8] not in {b"\x01\x00", b"\x02\x00", b"\x03\x00"}:
        raise GalleryError(f"its member {name!r} is no array")
    start = 10 if data[6] == 1 else 12
    size = int.from_bytes(data[8:start], "little")
    match = _HEADER.fullmatch(data[start : start + min(size, 4096)])
    if match is None:
        raise GalleryError(f"its column {name!r} is not made of numbers or text; nothing of it was run")
    dtype = np.dtype(match["type"].decode())
    shape = tuple(int(side) for side in match["shape"].replace(b" ", b"").split(b",") if side)
    if math.prod(shape) * dtype.itemsize != len(data) - start - size or math.prod(shape) > most:
        raise GalleryError(f"its column {name!r} has another length than it says")
    if dtype.itemsize == 0:
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype, offset=start + size).reshape(shape)


def _records(columns: dict[str, npt.NDArray[Any]]) -> Records:
    embeddings, held = columns["embedding"], columns["has_embedding"]
    count = len(held)
    if embeddings.ndim != 2 or embeddings.dtype.kind != "f" or held.dtype != bool:
        raise GalleryError("its embeddings are no table of numbers")
    check_dimension(embeddings.shape[1])
    for name in (*_TEXTS, *_PIXELS, "embedding", "has_embedding"):
        column = columns[name]
        kind = "U" if name in _TEXTS else "iu" if name in _PIXELS else column.dtype.kind
        if len(column) != count or column.dtype.kind not in kind or (column.ndim != 1 and name != "embedding"):
            raise GalleryError(f"its column {name!r} does not fit the others")
    sides = [columns[name] for name in _PIXELS]
    if any(side.size and (side.min() < -(2**31) or side.max() >= 2**31) for side in sides):
        raise GalleryError("a face's box is not made of pixels")
    if any(columns[name].size and columns[name].view(np.uint32).max(initial=0) > _LAST_CHARACTER for name in _TEXTS):
        raise GalleryError("its text is damaged")
    identities, digests = (columns[name].tolist() for name in _TEXTS)
    boxes = list(zip(*(side.tolist() for side in sides), strict=True))
    blocks = (embeddings[start : start + _BLOCK] for start in range(0, count, _BLOCK))
    empty = frozenset(np.flatnonzero(~held).tolist()) if embeddings.shape[1] else frozenset(range(count))
    return Records(
        identities, list(map(clean_digest, digests)), boxes, unit_rows(blocks, count, embeddings.shape[1]), empty
    )
