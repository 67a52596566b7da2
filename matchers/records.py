"""DeepFace's gallery records, read and written.

DeepFace up to 0.0.101 keeps a gallery as a pickled list of dictionaries ``identity``, ``hash``, ``embedding``,
``target_x``, ``target_y``, ``target_w``, ``target_h`` (``modules/recognition.py``); up to 0.0.85 it wrote lists of
``identity, embedding, x, y, w, h``, and up to 0.0.80 of ``identity, embedding``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from matchers.base import Box, FloatArray, GalleryFace
from matchers.errors import GalleryError
from matchers.files import open_regular, written_atomically
from matchers.pickles import FloatRun, Limits, load
from matchers.record_bytes import BEGIN, END, encoded
from matchers.sources import (
    Folders,
    Roots,
    gallery_roots,
    longer_source,
    path_parts,
    person_of,
    source_of,
    written_prefix,
)

_BOX: Final = ("target_x", "target_y", "target_w", "target_h")
_NO_BOX: Final = (0, 0, 0, 0)
_MAX_DIMENSION: Final = 8192
_MAX_IDENTITY: Final = 4096
_MAX_DIGEST: Final = 128
# Rows that are scaled at once.
_BLOCK: Final = 2048
_SAME: Final = 1e-6
_MAX_FACES: Final = 200

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Unusable:
    """A record that is left out, and why."""

    identity: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """The rows of a gallery file, in the file's order.

    Attributes:
        identities: paths of pictures, as DeepFace wrote them.
        digests: DeepFace's hash of each picture; "" where there is none.
        boxes: x, y, width, height of each face; zeros where there is none.
        embeddings: (n, d) float32; rows of length 1, or zeros for faces without a usable embedding.
        empty: rows without an embedding: DeepFace found no face in the picture.
    """

    identities: Sequence[str]
    digests: Sequence[str]
    boxes: Sequence[Box]
    embeddings: FloatArray
    empty: frozenset[int]


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """What a gallery file holds.

    Attributes:
        faces: in the file's order, each once.
        empty: identities without an embedding (DeepFace found no face in them).
        unusable: records that no gallery can hold.
        copies: how many records repeat another one.
        roots: the folders above the people; None when the file's identities are sources as they stand.
    """

    faces: tuple[GalleryFace, ...]
    empty: tuple[str, ...]
    unusable: tuple[Unusable, ...] = ()
    copies: int = 0
    roots: Roots | None = None


def read_gallery(path: Path) -> Gallery:
    """Read a ``.pkl`` gallery without running any of it.

    Embeddings are scaled to length 1. A record's source is its path below the gallery's root, or that of its roots
    above it (:func:`matchers.sources.gallery_roots`). Its person is the folder there, or the file's stem when the
    picture lies at the root.

    Raises:
        GalleryError: the file cannot be read, is damaged or hostile, holds no gallery, or a record that none can hold.
    """
    try:
        with open_regular(path, Limits().max_bytes) as file:
            gallery = gallery_of(read_pickle(file), path.parent.name)
        for unusable in gallery.unusable:
            raise GalleryError(f"the record of {unusable.identity!r} cannot be used: {unusable.reason}")
    except GalleryError as error:
        raise GalleryError(f"{path} is no gallery that can be read: {error}") from error
    return gallery


def read_pickle(file: IO[bytes], on_progress: Progress | None = None) -> Records:
    """The records of a ``.pkl`` file.

    Raises:
        GalleryError: it is damaged or hostile, or holds no records.
    """
    try:
        data = file.read()
    except OSError as error:
        raise GalleryError(f"{error.strerror}") from error
    return _records(load(data, on_progress=on_progress))


def gallery_of(records: Records, folder: str = "", roots: Collection[Folders] = ()) -> Gallery:
    """The faces of ``records``, by person and picture.

    Faces of one picture without boxes, which very old files have, are told apart by numbers in place of ``x``. Pictures
    of several roots whose paths below them are the same become one when they have a face in common, else each gets a
    source of its own.

    Args:
        folder: name of the folder where the file lies.
        roots: the folders above the people, as the identities have them; none: what :func:`gallery_roots` finds.
    """
    unusable = {row: reason for row, identity in enumerate(records.identities) if (reason := _wrong_path(identity))}
    usable = [identity for row, identity in enumerate(records.identities) if row not in unusable]
    top = Roots(frozenset(roots)) if roots or not usable else gallery_roots(usable, folder)
    sources = _Sources(top)
    held = (records.embeddings != 0).any(axis=1)
    rows: dict[tuple[str, Box], int] = {}
    faces, empty, copies = [], [], 0
    for row, (identity, digest, box) in enumerate(zip(records.identities, records.digests, records.boxes, strict=True)):
        if row in unusable:
            continue
        if row in records.empty:
            empty.append(identity)
            continue
        try:
            if not held[row]:
                raise GalleryError("its embedding is not made of finite numbers, some of them not 0")
            source = sources.of(identity, partial(_is_there, records.embeddings, rows, box, row))
            person = person_of(source)
            place = _free(records.embeddings, rows, source, box, row)
        except GalleryError as error:
            unusable[row] = str(error)
            continue
        if place is None:
            copies += 1
            continue
        rows[source, place] = row
        faces.append(GalleryFace(person, source, digest, records.embeddings[row], place))
    left_out = (Unusable(_shown(records.identities[row]), unusable[row]) for row in sorted(unusable))
    return Gallery(tuple(faces), tuple(empty), tuple(left_out), copies, top)


def write_gallery(path: Path, faces: Iterable[GalleryFace]) -> None:
    """Write a ``.pkl`` gallery that DeepFace up to 0.0.101 reads, atomically.

    Raises:
        OSError: the disk is full, or the folder cannot be written; an older file stays as it was.
    """
    faces = list(faces)
    prefix = written_prefix([face.source for face in faces], path.parent.name)
    with written_atomically(path) as file:
        write_records(file, ((prefix + face.source, face.digest, face) for face in faces))


def write_records(file: IO[bytes], records: Iterable[tuple[str, str, GalleryFace]]) -> None:
    """The pickle of protocol 4 that DeepFace up to 0.0.101 reads.

    Args:
        records: identity, hash and face.
    """
    file.write(BEGIN)
    rest = iter(records)
    while block := list(islice(rest, _BLOCK)):
        identities, digests = [_utf8(one) for one, _, _ in block], [_utf8(one) for _, one, _ in block]
        boxes = np.array([face.box for _, _, face in block], np.int32)
        file.write(encoded(identities, digests, boxes, np.stack([face.embedding for _, _, face in block])))
    file.write(END)


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
    elif person_of(face.source) != face.person:
        reason = f"it is of {face.person}, but the first folder of its source names the person"
    else:
        return
    raise GalleryError(f"the face of {face.source!r} does not fit a gallery file: {reason}")


def unit_rows(blocks: Iterable[npt.NDArray[Any]], count: int, dimension: int) -> FloatArray:
    """(count, dimension) float32 out of consecutive ``blocks`` of rows, each row scaled to length 1.

    Rows that cannot be scaled (of zeros, or not finite) become zeros.
    """
    rows = np.zeros((count, dimension), np.float32)
    start = 0
    for block in blocks:
        exact = np.asarray(block, np.float64)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            norms = np.sqrt(np.einsum("ij,ij->i", exact, exact))[:, np.newaxis]
            good = np.isfinite(norms) & (norms > 1e-12)
            np.divide(exact, norms, out=rows[start : start + len(block)], where=good, casting="same_kind")
        start += len(block)
    return rows


def clean_digest(value: object) -> str:
    """DeepFace's hash of a picture, "" for anything else."""
    return value if isinstance(value, str) and _is_text(value, _MAX_DIGEST) else ""


def check_dimension(dimension: int) -> None:
    """Make sure that embeddings of that length can be those of a face.

    Raises:
        GalleryError: they cannot.
    """
    if dimension > _MAX_DIMENSION:
        raise GalleryError(f"an embedding has more than {_MAX_DIMENSION} numbers")


def _records(value: object) -> Records:
    if not isinstance(value, list):
        raise GalleryError("it holds no list of records")
    identities, digests, boxes, vectors, empty = [], [], [], [], set()
    dimensions = set()
    for row, record in enumerate(value):
        identity, digest, embedding, box = _row(record)
        vector = _vector(embedding)
        if vector is None:
            empty.add(row)
        else:
            dimensions.add(len(vector))
        identities.append(identity)
        digests.append(digest)
        boxes.append(box)
        vectors.append(vector)
        # What was taken over need not stay in memory twice.
        value[row] = None
    if len(dimensions) > 1:
        raise GalleryError(f"its embeddings have different lengths: {', '.join(map(str, sorted(dimensions)))}")
    dimension = dimensions.pop() if dimensions else 0
    nothing = np.zeros(dimension)
    blocks = (
        np.stack([nothing if vector is None else vector for vector in vectors[start : start + _BLOCK]])
        for start in range(0, len(vectors), _BLOCK)
    )
    return Records(identities, digests, boxes, unit_rows(blocks, len(vectors), dimension), frozenset(empty))


def _row(record: object) -> tuple[str, str, object, Box]:
    if isinstance(record, list | tuple) and len(record) in {2, 6}:
        return _identity(record[0]), "", record[1], _pixels(record[2:] or _NO_BOX)
    if not isinstance(record, dict) or "identity" not in record or "embedding" not in record:
        raise GalleryError("a record has no identity and embedding")
    box = _pixels([record.get(key) for key in _BOX])
    return _identity(record["identity"]), clean_digest(record.get("hash")), record["embedding"], box


def _identity(value: object) -> str:
    if not isinstance(value, str):
        raise GalleryError("an identity is not the path of a picture")
    return value


def _wrong_path(identity: str) -> str:
    if not identity or not _is_text(identity, _MAX_IDENTITY):
        return "an identity is not the path of a picture"
    try:
        path_parts(identity)
    except GalleryError as error:
        return str(error)
    return ""


def _shown(identity: str) -> str:
    """What may stand in a report."""
    return "".join(letter for letter in identity[:_MAX_IDENTITY] if letter.isprintable())


def _pixels(values: Sequence[object]) -> Box:
    x, y, width, height = map(_pixel, values)
    return x, y, width, height


def _pixel(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not -(2**31) <= value < 2**31:
        raise GalleryError("a face's box is not made of pixels")
    return int(value)


def _vector(value: object) -> npt.NDArray[Any] | None:
    """(d,) numbers; None when there are none."""
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        if value.ndim != 1:
            raise GalleryError("an embedding is not a list of numbers")
        check_dimension(value.size)
        return value if value.size else None
    if not isinstance(value, list | tuple):
        raise GalleryError("an embedding is not a list of numbers")
    check_dimension(sum(len(part.values) if isinstance(part, FloatRun) else 1 for part in value))
    if len(value) == 1 and isinstance(value[0], FloatRun):
        return value[0].values
    parts: list[npt.NDArray[Any]] = []
    for part in value:
        if isinstance(part, FloatRun):
            parts.append(part.values)
        elif isinstance(part, int | float) and not isinstance(part, bool):
            parts.append(np.array([part], np.float64))
        else:
            raise GalleryError("an embedding is not a list of numbers")
    return np.concatenate(parts).astype(np.float64) if parts else None


def _free(embeddings: FloatArray, rows: dict[tuple[str, Box], int], source: str, box: Box, row: int) -> Box | None:
    """Where to put a face of ``source``; None when it is there already.

    Raises:
        GalleryError: another face is at the same place of the picture.
    """
    x, y, width, height = box
    for number in range(1 if width or height else _MAX_FACES):
        other = rows.get((source, (x + number, y, width, height)))
        if other is None:
            return x + number, y, width, height
        if _is_same(embeddings, other, row):
            return None
    raise GalleryError("its picture has another face at the same place")


def _is_there(embeddings: FloatArray, rows: dict[tuple[str, Box], int], box: Box, row: int, source: str) -> bool:
    """Whether ``source`` has that face already."""
    other = rows.get((source, box))
    return other is not None and _is_same(embeddings, other, row)


def _is_same(embeddings: FloatArray, one: int, other: int) -> bool:
    return bool(np.abs(embeddings[one] - embeddings[other]).max() < _SAME)


class _Sources:
    """The sources of a gallery's pictures, no two of different roots the same."""

    def __init__(self, roots: Roots | None) -> None:
        self._roots = roots
        self._sources: dict[str, str] = {}
        self._owners: dict[str, str] = {}

    def of(self, identity: str, is_there: Callable[[str], bool]) -> str:
        """``is_there``: whether the face is one of another picture's, which then is the same picture, moved.

        Raises:
            GalleryError: the picture does not lie below a root, or under no name of a person.
        """
        if self._roots is None or len(self._roots.folders) == 1:
            return source_of(identity, self._roots)
        if identity not in self._sources:
            source = source_of(identity, self._roots)
            if self._owners.setdefault(source, identity) != identity and not is_there(source):
                source = longer_source(identity, self._roots)
            self._sources[identity] = source
        return self._sources[identity]


def _is_text(value: str, limit: int) -> bool:
    return len(value) <= limit and value.isprintable()


def _utf8(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")
