"""DeepFace's gallery records, read and written.

DeepFace up to 0.0.98 keeps a gallery as a pickled list of dictionaries ``identity``, ``hash``, ``embedding``,
``target_x``, ``target_y``, ``target_w``, ``target_h`` (``modules/recognition.py``); much older ones wrote a list of
``[identity, embedding]``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from matchers.base import FloatArray, GalleryFace
from matchers.errors import GalleryError, InvalidName
from matchers.files import written_atomically
from matchers.names import person_name
from matchers.pickles import FloatRun, load

_BOX: Final = ("target_x", "target_y", "target_w", "target_h")
_MAX_DIMENSION: Final = 8192


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

    Embeddings are scaled to length 1. A record's source is its path below the gallery root, which is the part that
    all identities share; its person is the folder there, or the file's stem when the picture lies at the root.

    Raises:
        GalleryError: the file cannot be read, is damaged or hostile, or holds no gallery.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise GalleryError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return _gallery(load(data))
    except GalleryError as error:
        raise GalleryError(f"{path} is no gallery that can be read: {error}") from error


def write_gallery(path: Path, faces: Iterable[GalleryFace]) -> None:
    """Write a ``.pkl`` gallery that DeepFace up to 0.0.98 reads, atomically.

    Raises:
        OSError: the disk is full, or the folder cannot be written; an older file stays as it was.
    """
    with written_atomically(path) as file:
        _write_records(file, faces)


def _gallery(value: object) -> Gallery:
    if not isinstance(value, list):
        raise GalleryError("it holds no list of records")
    rows = [_row(record) for record in value]
    sources = _relative([identity for identity, _, _, _ in rows])
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
        digest if isinstance(digest, str) else "",
        _embedding(record["embedding"]),
        (x, y, width, height),
    )


def _identity(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 4096 or not value.isprintable():
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


def _relative(identities: Sequence[str]) -> list[str]:
    """Identities as paths below the folder that all of them share, ``/`` between parts.

    Relative identities of depth two, which is what this program writes, stay as they are even when all faces belong
    to one person.
    """
    paths = [PurePosixPath(identity.replace("\\", "/")) for identity in identities]
    if all(len(path.parts) == 2 and not path.is_absolute() and ".." not in path.parts for path in paths):
        return [path.as_posix() for path in paths]
    parents = [path.parts[:-1] for path in paths]
    shared = 0
    while all(len(parts) > shared for parts in parents) and len({parts[shared] for parts in parents}) == 1:
        shared += 1
    if len(set(parents)) == 1 and shared:
        shared -= 1
    return ["/".join(path.parts[shared:]) for path in paths]


def _person(source: str) -> str:
    folder, slash, _ = source.partition("/")
    name = folder if slash else PurePosixPath(source).stem
    try:
        return person_name(name)
    except InvalidName as error:
        raise GalleryError(f"the folder of a picture is no name of a person: {error}") from error


def _write_records(file: IO[bytes], faces: Iterable[GalleryFace]) -> None:
    """The pickle of protocol 4 that ``pickle.dumps`` would write, without a list of Python floats per face."""
    file.write(b"\x80\x04]")
    for face in faces:
        values: dict[str, bytes] = {
            "identity": _text(face.source),
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
