"""Faces as PostgreSQL's binary COPY format, many at a time.

The format is described in PostgreSQL's manual under COPY, "Binary Format"; a vector is sent as its dimension, a zero
(16 bits each) and its numbers, all big-endian (``vector_recv`` of pgvector).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from psycopg import sql

from matchers.base import FloatArray, GalleryFace
from matchers.database import Connection
from matchers.errors import GalleryError

_COLUMNS: Final = ("domain", "person", "source", "digest", "x", "y", "w", "h", "embedding")
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER: Final = struct.pack(">h", -1)
_CHUNK_BYTES: Final = 4 * 2**20


def check_faces(faces: Sequence[GalleryFace], dimension: int, model: str) -> None:
    """Make sure that every face fits a table of ``model``.

    Raises:
        GalleryError: PostgreSQL cannot hold one of the names, or an embedding is not ``dimension`` finite numbers.
    """
    check_texts(text for face in faces for text in (face.person, face.source, face.digest))
    for chunk in _chunks(faces, dimension):
        for face in chunk:
            if face.embedding.shape != (dimension,):
                raise _unfit(face, dimension, model)
        finite = np.isfinite(_rows(chunk)).all(axis=1)
        if not finite.all():
            raise _unfit(chunk[int(np.argmin(finite))], dimension, model)


def check_texts(texts: Iterable[str]) -> None:
    """Make sure that PostgreSQL can hold all ``texts``.

    Raises:
        GalleryError: one of them is no Unicode, or holds a zero.
    """
    for text in texts:
        if "\0" in text or not _is_unicode(text):
            raise GalleryError(f"PostgreSQL cannot hold the name {text!r}: rename the file or folder")


def copy_faces(
    connection: Connection, table: sql.Composable, domain: str, faces: Sequence[GalleryFace], *, fresh: bool
) -> None:
    """Add checked faces to ``table`` in one COPY; ``fresh`` when the same transaction has created the table."""
    if not faces:
        return
    columns = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
    query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY, FREEZE {})").format(table, columns, sql.Literal(fresh))
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        copy.write(_HEADER)
        for chunk in _chunks(faces, len(faces[0].embedding)):
            copy.write(_encoded(domain, chunk))
        copy.write(_TRAILER)


def _encoded(domain: str, faces: Sequence[GalleryFace]) -> bytes:
    """The rows of some faces: texts one by one, everything of fixed length by numpy."""
    begin = struct.pack(">h", len(_COLUMNS)) + _text(domain)
    tails = memoryview(_tails(faces)).cast("B")
    size = len(tails) // len(faces)
    parts: list[bytes | memoryview] = []
    for number, face in enumerate(faces):
        parts += begin, _text(face.person), _text(face.source), _text(face.digest)
        parts.append(tails[number * size : (number + 1) * size])
    return b"".join(parts)


def _tails(faces: Sequence[GalleryFace]) -> bytes:
    """Box and embedding of every face, each field behind its length."""
    rows = _rows(faces)
    dimension = rows.shape[1]
    record = np.empty(
        len(faces),
        [
            ("box", [("length", ">i4"), ("value", ">i4")], 4),
            ("length", ">i4"),
            ("dimension", ">i2"),
            ("unused", ">i2"),
            ("embedding", ">f4", dimension),
        ],
    )
    record["box"]["length"] = 4
    record["box"]["value"] = [face.box for face in faces]
    record["length"] = 4 + 4 * dimension
    record["dimension"] = dimension
    record["unused"] = 0
    record["embedding"] = rows
    return record.tobytes()


def _rows(faces: Sequence[GalleryFace]) -> FloatArray:
    return np.concatenate([face.embedding for face in faces]).reshape(len(faces), -1)


def _chunks(faces: Sequence[GalleryFace], dimension: int) -> Iterator[Sequence[GalleryFace]]:
    size = max(1, _CHUNK_BYTES // (4 * dimension + 200))
    for start in range(0, len(faces), size):
        yield faces[start : start + size]


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">i", len(data)) + data


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unfit(face: GalleryFace, dimension: int, model: str) -> GalleryError:
    return GalleryError(f"the embedding of {face.source!r} is not {dimension} finite numbers, as {model} gives")
