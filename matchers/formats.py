"""The four formats of DeepFace's galleries, told apart by the end of the file's name."""

from __future__ import annotations

from pathlib import PurePath
from typing import IO, Final, Literal, get_args

from matchers.arrow import check_pyarrow, read_arrow
from matchers.errors import GalleryError, GalleryFileError
from matchers.npz import read_npz
from matchers.records import Progress, Records, read_pickle

Format = Literal["pkl", "npz", "parquet", "feather"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

# Pickles begin with a mark only from protocol 2 on; DeepFace has always written such.
_BEGINNINGS: Final[dict[bytes, Format]] = {
    b"\x80": "pkl",
    b"PK\x03\x04": "npz",
    b"PAR1": "parquet",
    b"ARROW1": "feather",
}


class UnknownFormat(GalleryFileError):
    """The file's name ends like no gallery's."""


def format_of(file: str) -> Format:
    """The format of a gallery file of that name, which can be read here.

    Raises:
        UnknownFormat: there is none.
        NoPyarrow: the package that reads it is not installed.
    """
    ending = PurePath(file).suffix.lower().removeprefix(".")
    if ending == "pickle":
        ending = "pkl"
    if ending not in FORMATS:
        raise UnknownFormat(
            "A gallery of DeepFace is a file that ends in .pkl, .npz, .parquet or .feather. Give the file its own name "
            "back: it also tells which model and detector made it."
        )
    if ending in {"parquet", "feather"}:
        check_pyarrow()
    return ending


def read_records(file: IO[bytes], kind: Format, on_progress: Progress | None = None) -> Records:
    """The records of a gallery file, read as data: nothing in it is run.

    Args:
        on_progress: called with the bytes read and the bytes to read, where that can be told.

    Raises:
        GalleryError: the file is damaged or hostile, or holds no gallery of DeepFace.
    """
    _check_beginning(file, kind)
    file.seek(0)
    if kind == "pkl":
        return read_pickle(file, on_progress)
    if kind == "npz":
        return read_npz(file)
    return read_arrow(file, kind)


def _check_beginning(file: IO[bytes], kind: Format) -> None:
    file.seek(0)
    beginning = file.read(8)
    if not beginning:
        raise GalleryError("it is empty")
    for mark, other in _BEGINNINGS.items():
        if beginning.startswith(mark) and other != kind:
            raise GalleryError(f"by its content it is a .{other} file: give it that ending, or get the right file")
