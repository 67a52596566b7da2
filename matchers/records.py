"""DeepFace's gallery records, read and written.

DeepFace up to 0.0.98 keeps a gallery as a pickled list of dictionaries ``identity``, ``hash``, ``embedding``,
``target_x``, ``target_y``, ``target_w``, ``target_h`` (``modules/recognition.py``); much older ones wrote a list of
``[identity, embedding]``.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from matchers.base import FloatArray, GalleryFace
from matchers.errors import GalleryError, InvalidName
from matchers.files import written_atomically
from matchers.names import person_name
from matchers.pickles import FloatRun, Limits, load

_BOX: Final = ("target_x", "target_y", "target_w", "target_h")
_MAX_DIMENSION: Final = 8192
_MAX_IDENTITY: Final = 4096
_MAX_DIGEST: Final = 128
_AS_IT_IS: Final = "./"
_DRIVE: Final = re.compile(r"[A-Za-z]:(?=[\\/])")


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """What a gallery file holds.

    Attributes:
        faces: in the file's order.
        empty: identities without an embedding (DeepFace found no face in them).
    """

    faces: tuple[GalleryFace, ...]
    empty: tuple[str, ...]


def read_gallery(path: Path) -> Gallery:
    """Read a ``.pkl`` gallery without running any of it.

    Embeddings are scaled to length 1. A record's source is its path below the gallery root: the folder that all
    identities share, or the one among their folders that is called like the file's own folder. Its person is the
    folder there, or the file's stem when the picture lies at the root.

    Raises:
        GalleryError: the file cannot be read, is damaged or hostile, or holds no gallery.
    """
    try:
        return _gallery(load(_read_file(path)), path.parent.name)
    except GalleryError as error:
        raise GalleryError(f"{path} is no gallery that can be read: {error}") from error


def write_gallery(path: Path, faces: Iterable[GalleryFace]) -> None:
    """Write a ``.pkl`` gallery that DeepFace up to 0.0.98 reads, atomically.

    Raises:
        OSError: the disk is full, or the folder cannot be written; an older file stays as it was.
    """
    faces = list(faces)
    sources = [face.source for face in faces]
    prefix = "" if _relative(sources, path.parent.name) == sources else _AS_IT_IS
    with written_atomically(path) as file:
        _write_records(file, faces, prefix)


def check_face(face: GalleryFace, dimension: int) -> None:
    """Make sure that a face reads as the same face once it is written.

    Raises:
        GalleryError: it does not; the message says why.
    """
    vector = face.embedding
    if vector.shape != (dimension,) or not np.isfinite(vector).all() or not np.any(vector):
        reason = f"its embedding is not {dimension} finite numbers, some of them not 0"
    elif not _is_text(face.source, _MAX_IDENTITY) or not face.source or not _is_text(face.digest, _MAX_DIGEST):
        reason = "its source or digest is not printable text"
    elif any(not -(2**31) <= value < 2**31 for value in face.box):
        reason = "its box is not made of pixels"
    elif _person(face.source) != face.person:
        reason = f"it is of {face.person}, but the first folder of its source names the person"
    else:
        return
    raise GalleryError(f"the face of {face.source!r} does not fit a gallery file: {reason}")


def _read_file(path: Path) -> bytes:
    limit = Limits().max_bytes
    try:
        # Without O_NONBLOCK a named pipe would wait for a writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
                raise GalleryError(f"it is no file of at most {limit:,} bytes")
            return file.read()
    except OSError as error:
        raise GalleryError(f"{error.strerror}") from error


def _gallery(value: object, folder: str) -> Gallery:
    if not isinstance(value, list):
        raise GalleryError("it holds no list of records")
    rows = [_row(record) for record in value]
    sources = _relative([identity for identity, _, _, _ in rows], folder)
    faces, empty = [], []
    for (identity, digest, embedding, box), source in zip(rows, sources, strict=True):
        if embedding is None:
            empty.append(identity)
        else:
            faces.append(GalleryFace(_person(source), source, digest, embedding, box))
    dimensions = {len(face.embedding) for face in faces}
    if len(dimensions) > 1:
        raise GalleryError(f"its embeddings have different lengths: {', '.join(map(str, sorted(dimensions)))}")
    return Gallery(tuple(faces), tuple(empty))


_Row = tuple[str, str, FloatArray | None, tuple[int, int, int, int]]


def _row(record: object) -> _Row:
    if isinstance(record, list | tuple) and len(record) == 2:
        return _identity(record[0]), "", _embedding(record[1]), (0, 0, 0, 0)
    if not isinstance(record, dict) or "identity" not in record or "embedding" not in record:
        raise GalleryError("a record has no identity and embedding")
    digest = record.get("hash")
    x, y, width, height = (_pixel(record.get(key)) for key in _BOX)
    return (
        _identity(record["identity"]),
        digest if isinstance(digest, str) and _is_text(digest, _MAX_DIGEST) else "",
        _embedding(record["embedding"]),
        (x, y, width, height),
    )


def _identity(value: object) -> str:
    if not isinstance(value, str) or not value or not _is_text(value, _MAX_IDENTITY):
        raise GalleryError("an identity is not the path of a picture")
    return value


def _pixel(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not -(2**31) <= value < 2**31:
        raise GalleryError("a face's box is not made of pixels")
    return int(value)


def _embedding(value: object) -> FloatArray | None:
    if value is None:
        return None
    vector = _vector(value)
    if vector.size == 0:
        return None
    with np.errstate(over="ignore"):
        norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm) or norm < 1e-12:
        raise GalleryError("an embedding is not made of finite numbers")
    return np.asarray(vector / norm, np.float32)


def _vector(value: object) -> npt.NDArray[np.float64]:
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or value.size > _MAX_DIMENSION:
            raise GalleryError("an embedding is not a list of numbers")
        return value.astype(np.float64)
    if not isinstance(value, list | tuple):
        raise GalleryError("an embedding is not a list of numbers")
    if sum(len(part.values) if isinstance(part, FloatRun) else 1 for part in value) > _MAX_DIMENSION:
        raise GalleryError(f"an embedding has more than {_MAX_DIMENSION} numbers")
    parts: list[npt.NDArray[Any]] = []
    for part in value:
        if isinstance(part, FloatRun):
            parts.append(part.values)
        elif isinstance(part, int | float) and not isinstance(part, bool):
            parts.append(np.array([part], np.float64))
        else:
            raise GalleryError("an embedding is not a list of numbers")
    return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)


def _relative(identities: Sequence[str], folder: str) -> list[str]:
    """Identities as paths below the gallery's root, ``/`` between parts.

    Relative identities of one or two parts, which is what this program writes, stay as they are even when all faces
    belong to one person; so do identities behind ``./``, which it writes when they would be taken for something else.
    """
    if all(map(_is_short, identities)):
        return list(identities)
    if all(identity.startswith(_AS_IT_IS) for identity in identities):
        return [identity.removeprefix(_AS_IT_IS) for identity in identities]
    paths = [_parts(identity) for identity in identities]
    parents = [path[:-1] for path in paths]
    # What the first and the last in order share, all share.
    pairs = zip(min(parents), max(parents), strict=False)
    root = [part for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    shared = len(root)
    if folder in root:
        shared -= root[::-1].index(folder)
    elif shared and all(len(path) == shared + 1 for path in paths):
        shared -= 1
    return ["/".join(path[shared:]) for path in paths]


def _is_short(identity: str) -> bool:
    parts = identity.split("/")
    return len(parts) <= 2 and "\\" not in identity and not {"", ".", ".."} & {*parts} and not _DRIVE.match(identity)


def _parts(identity: str) -> tuple[str, ...]:
    path = _DRIVE.sub("", identity).replace("\\", "/")
    parts = tuple(part for part in path.split("/") if part not in {"", ".", ".."})
    if not parts:
        raise GalleryError("an identity is not the path of a picture")
    return parts


def _is_text(value: str, limit: int) -> bool:
    return len(value) <= limit and value.isprintable()


def _person(source: str) -> str:
    folder, slash, _ = source.partition("/")
    name = folder if slash else PurePosixPath(source).stem
    try:
        return person_name(name)
    except InvalidName as error:
        raise GalleryError(f"the folder of a picture is no name of a person: {error}") from error


def _write_records(file: IO[bytes], faces: Iterable[GalleryFace], prefix: str) -> None:
    """The pickle of protocol 4 that ``pickle.dumps`` would write, without a list of Python floats per face."""
    file.write(b"\x80\x04]")
    for face in faces:
        values: dict[str, bytes] = {
            "identity": _text(prefix + face.source),
            "hash": _text(face.digest),
            "embedding": b"](" + _floats(face.embedding) + b"e",
            **{key: b"J" + struct.pack("<i", pixel) for key, pixel in zip(_BOX, face.box, strict=True)},
        }
        file.write(b"}(" + b"".join(_text(key) + value for key, value in values.items()) + b"ua")
    file.write(b".")


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def _floats(vector: FloatArray) -> bytes:
    record = np.empty(len(vector), [("opcode", "u1"), ("value", ">f8")])
    record["opcode"] = ord("G")
    record["value"] = vector
    return record.tobytes()
