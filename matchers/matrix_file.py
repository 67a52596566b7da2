"""A gallery laid out for searching, in a file beside the ``.pkl`` that it was made from.

Reading 100,000 records out of a pickle takes seconds; this file is mapped into memory at once, and all processes share
its pages. It is nothing but a copy: it says which ``.pkl`` it was made from, and is left alone when that is another by
now, when a byte is damaged, or when somebody else could have written it. Whoever changes the gallery deletes it first
and writes it anew, so that nobody who was deleted lives on in it.

Layout, little-endian: one page with a line that names the format, the CRC-32 of the header, and the header as JSON;
then the columns of :class:`matchers.columns.Columns`, each from the beginning of a page.
"""

from __future__ import annotations

import json
import logging
import math
import mmap
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from matchers.columns import Change, Columns, Texts
from matchers.files import written_atomically
from matchers.scan import Codes

_MAGIC: Final = b"face-gallery-matrix 1\n"
_PAGE: Final = 4096

_logger = logging.getLogger(__name__)


class _Damaged(Exception):
    """The file is not as it was written."""


@dataclass(frozen=True, slots=True)
class _Header:
    """What the file holds.

    Attributes:
        gallery: size, time of change and time of change of the status (ns) of the ``.pkl``; nobody sets the last one.
        faces: n.
        dimension: d.
        sources: bytes of all sources.
        digests: bytes of all digests.
        longest: as :attr:`Codes.longest`.
        checksums: CRC-32 of every column.
    """

    gallery: tuple[int, int, int]
    faces: int
    dimension: int
    sources: int
    digests: int
    longest: float
    checksums: dict[str, int]

    def columns(self) -> dict[str, tuple[int, int, str]]:
        """Where each column begins, its length in bytes and its type."""
        n, d = self.faces, self.dimension
        lengths = {
            "rows": (4 * n * d, "<f4"),
            "values": (n * d, "i1"),
            "scales": (4 * n, "<f4"),
            "errors": (4 * n, "<f4"),
            "boxes": (16 * n, "<i4"),
            "source_ends": (8 * (n + 1), "<i8"),
            "digest_ends": (8 * (n + 1), "<i8"),
            "sources": (self.sources, "u1"),
            "digests": (self.digests, "u1"),
        }
        places, position = {}, _PAGE
        for name, (length, kind) in lengths.items():
            places[name] = position, length, kind
            position += _whole_pages(length)
        return places

    @property
    def size(self) -> int:
        """Bytes of the file."""
        position, length, _ = list(self.columns().values())[-1]
        return position + _whole_pages(length)


def matrix_path(gallery: Path) -> Path:
    """The file that belongs to a gallery, whether it is there or not."""
    return gallery.with_name(gallery.name + ".matrix")


def write_matrix(gallery: Path, change: Change) -> None:
    """Write the file of a gallery that holds ``change`` by now.

    Raises:
        OSError: the disk is full, or the folder cannot be written; there is no file then.
    """
    sources, digests = change.sources(), change.digests()
    header = _Header(
        _gallery_stamp(gallery),
        len(change),
        change.dimension,
        len(sources.data),
        len(digests.data),
        change.longest,
        {},
    )
    places = header.columns()
    with written_atomically(matrix_path(gallery), durable=False) as file:
        for name, part in _parts(change, sources, digests):
            position, _, kind = places[name]
            data = np.ascontiguousarray(part, kind).data.cast("B")
            header.checksums[name] = zlib.crc32(data, header.checksums.get(name, 0))
            file.seek(position)
            file.write(data)
            places[name] = position + len(data), 0, kind
        file.truncate(header.size)
        described = json.dumps(asdict(header)).encode()
        file.seek(0)
        file.write(_MAGIC + b"%08x\n" % zlib.crc32(described) + described + b"\n")


def open_matrix(gallery: Path) -> Columns | None:
    """The columns of a gallery, mapped from its file; None when there is none that can be trusted."""
    path = matrix_path(gallery)
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return _mapped(file, gallery)
    except FileNotFoundError:
        return None
    except (OSError, _Damaged) as error:
        _logger.warning("%s is left alone, the gallery itself is read: %s", path, error)
        return None


def _mapped(file: IO[bytes], gallery: Path) -> Columns | None:
    status, own = os.fstat(file.fileno()), gallery.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022 or status.st_uid not in {os.geteuid(), own.st_uid}:
        raise _Damaged("somebody else may have written it")
    if status.st_size < _PAGE:
        raise _Damaged("it is cut off")
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header = _read_header(mapping[:_PAGE])
    if header.gallery != _gallery_stamp(gallery):
        return None
    places = header.columns()
    if len(mapping) != header.size:
        raise _Damaged("it is cut off")
    with memoryview(mapping) as view:
        for name, (position, length, _) in places.items():
            if zlib.crc32(view[position : position + length]) != header.checksums.get(name):
                raise _Damaged(f"its column {name} is damaged")
    if hasattr(mmap, "MADV_DONTNEED"):
        # The check has read everything; a search reads the codes and a few rows.
        mapping.madvise(mmap.MADV_DONTNEED)
    arrays = {
        name: np.frombuffer(mapping, kind, length // np.dtype(kind).itemsize, position)
        for name, (position, length, kind) in places.items()
    }
    return Columns(
        _texts(arrays["sources"], arrays["source_ends"]),
        _texts(arrays["digests"], arrays["digest_ends"]),
        arrays["boxes"].reshape(-1, 4),
        arrays["rows"].reshape(header.faces, header.dimension),
        Codes(
            arrays["values"].reshape(header.faces, header.dimension),
            arrays["scales"],
            arrays["errors"],
            header.longest,
        ),
    )


def _read_header(page: bytes) -> _Header:
    magic, _, rest = page.partition(b"\n")
    checksum, _, rest = rest.partition(b"\n")
    described = rest.partition(b"\n")[0]
    if magic + b"\n" != _MAGIC:
        raise _Damaged("it is of another format")
    if b"%08x" % zlib.crc32(described) != checksum:
        raise _Damaged("its header is damaged")
    try:
        fields = json.loads(described)
        header = _Header(**{**fields, "gallery": tuple(fields["gallery"])})
        whole = (*header.gallery, header.faces, header.dimension, header.sources, header.digests)
    except (ValueError, TypeError, KeyError) as error:
        raise _Damaged("its header does not make sense") from error
    if any(type(number) is not int or number < 0 for number in whole) or not 0 <= header.longest < math.inf:
        raise _Damaged("its header does not make sense")
    return header


def _texts(data: npt.NDArray[Any], ends: npt.NDArray[Any]) -> Texts:
    if ends[0] != 0 or ends[-1] != len(data) or (np.diff(ends) < 0).any():
        raise _Damaged("its names do not make sense")
    view = data.data
    try:
        str(view, "utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise _Damaged("its names are no text") from error
    return Texts(view, ends)


def _parts(change: Change, sources: Texts, digests: Texts) -> Iterator[tuple[str, npt.ArrayLike]]:
    yield "source_ends", sources.ends
    yield "digest_ends", digests.ends
    yield "sources", np.frombuffer(sources.data, np.uint8)
    yield "digests", np.frombuffer(digests.data, np.uint8)
    for part in change.blocks():
        codes = change.codes(part)
        yield "rows", change.rows(part)
        yield "values", codes.values
        yield "scales", codes.scales
        yield "errors", codes.errors
        yield "boxes", change.boxes(part)


def _whole_pages(length: int) -> int:
    return -(-length // _PAGE) * _PAGE


def _gallery_stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
