"""DeepFace's records as bytes of a pickle, many at a time.

The bytes are those that ``pickle.dumps`` of protocol 4 could write for a list of dictionaries, without memo and frames
(``Lib/pickletools.py`` of CPython describes the opcodes): numbers of fixed length are laid out by numpy for all faces
at once, instead of a list of Python floats for each.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from matchers.base import FloatArray

BEGIN: Final = b"\x80\x04]"
"""Protocol 4, an empty list."""
END: Final = b"."

_BOX: Final = (b"target_x", b"target_y", b"target_w", b"target_h")


def encoded(
    identities: Sequence[bytes], digests: Sequence[bytes], boxes: npt.NDArray[np.int32], rows: FloatArray
) -> bytes:
    """The records of some faces, to stand between :data:`BEGIN` and :data:`END`.

    Args:
        identities: paths of the pictures, in UTF-8.
        digests: the pictures' hashes, in UTF-8.
        boxes: (n, 4) int32, x, y, width, height.
        rows: (n, d) float32, the embeddings.
    """
    if not identities:
        return b""
    tails = memoryview(_tails(boxes, rows)).cast("B")
    size = len(tails) // len(identities)
    before, between = b"}(" + _text(b"identity"), _text(b"hash")
    parts: list[bytes | memoryview] = []
    for number, (identity, digest) in enumerate(zip(identities, digests, strict=True)):
        parts += before, _text(identity), between, _text(digest), tails[number * size : (number + 1) * size]
    return b"".join(parts)


def _tails(boxes: npt.NDArray[np.int32], rows: FloatArray) -> bytes:
    """Embedding and box of every face, and what ends a record: everything of fixed length."""
    begin = _text(b"embedding") + b"]("
    fields: list[Any] = [
        ("begin", f"S{len(begin)}"),
        ("floats", [("opcode", "u1"), ("value", ">f8")], rows.shape[1]),
        ("appends", "S1"),
    ]
    for key in _BOX:
        fields += (key.decode(), f"S{len(_text(key)) + 1}"), (f"{key.decode()} value", "<i4")
    record = np.empty(len(rows), [*fields, ("end", "S2")])
    record["begin"] = begin
    record["floats"]["opcode"] = ord("G")
    record["floats"]["value"] = rows
    record["appends"] = b"e"
    for column, key in enumerate(_BOX):
        record[key.decode()] = _text(key) + b"J"
        record[f"{key.decode()} value"] = boxes[:, column]
    record["end"] = b"ua"
    return record.tobytes()


def _text(data: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(data)) + data
