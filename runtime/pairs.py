"""The pairs file of Labeled Faces in the Wild, and pictures named as LFW names them.

Format (Huang et al. 2007, ``README`` of LFW): the first line holds the number of folds and of pairs of each kind per
fold (``10 300``; one number alone means one fold). Each fold lists its pairs of one person, ``Name 1 4``, then its
pairs of two people, ``Name 1 Other_Name 2``. Fields are separated by tabs, or by spaces when there is no tab.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import RuntimeFault

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

_NUMBERED = re.compile(r"(?P<person>.+)_(?P<number>[0-9]+)")


class PairsError(RuntimeFault):
    """A pairs file or a folder of pictures cannot be used."""


@dataclass(frozen=True, slots=True, order=True)
class PictureName:
    """A picture in a pairs file: the ``number``-th of ``person``."""

    person: str
    number: int

    def __str__(self) -> str:
        return f"{self.person}_{self.number:04d}"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures to compare.

    Attributes:
        fold: which part of the file the pair belongs to, from 0.
    """

    fold: int
    left: PictureName
    right: PictureName

    @property
    def same(self) -> bool:
        """Whether both show one person."""
        return self.left.person == self.right.person


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """Every pair of an LFW pairs file, in its order.

    Raises:
        PairsError: the file cannot be read or does not follow the format; the message names the line.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise PairsError(f"{path} cannot be read: {reason}.") from error
    rows = [(number, _fields(line)) for number, line in enumerate(lines, start=1) if line.strip()]
    folds, count = _header(path, rows)
    if len(rows) - 1 != folds * 2 * count:
        raise PairsError(
            f"{path} announces {folds} x 2 x {count} pairs and holds {len(rows) - 1}. Get the whole file, "
            "or correct its first line."
        )
    pairs = []
    for index, (number, fields) in enumerate(rows[1:]):
        fold, place = divmod(index, 2 * count)
        pairs.append(_pair(f"{path}, line {number}", fields, fold, same=place < count))
    return tuple(pairs)


@dataclass(frozen=True, slots=True)
class NamedPicture:
    """A picture file and who it shows.

    Attributes:
        name: as a pairs file names it; None when the file is not named ``Name_0001``.
    """

    person: str
    path: Path
    name: PictureName | None


def list_pictures(root: Path) -> list[NamedPicture]:
    """Pictures under ``root``, as ``Name/Name_0001.jpg`` or flat as ``Name_0001.jpg``, sorted by person and path.

    In a person's folder a picture may have any name; flat ones without a number are passed over, so are hidden files.

    Raises:
        PairsError: ``root`` is no folder, or holds no such picture.
    """
    if not root.is_dir():
        raise PairsError(f"{root} is not a folder. Name the folder that holds the pictures.")
    found = []
    for path in sorted([*root.glob("*"), *root.glob("*/*")]):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if hidden or path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        name = _picture_name(path)
        if path.parent != root:
            person = unicodedata.normalize("NFC", path.parent.name)
            found.append(NamedPicture(person, path, name if name and name.person == person else None))
        elif name is not None:
            found.append(NamedPicture(name.person, path, name))
    if not found:
        raise PairsError(f"{root} holds no picture named as {root / 'Name' / 'Name_0001.jpg'} or Name_0001.jpg.")
    return sorted(found, key=lambda picture: (picture.person, picture.path))


def _picture_name(path: Path) -> PictureName | None:
    parts = _NUMBERED.fullmatch(unicodedata.normalize("NFC", path.stem))
    return PictureName(parts["person"], int(parts["number"])) if parts is not None else None


def _fields(line: str) -> list[str]:
    parts = line.split("\t") if "\t" in line else line.split()
    return [unicodedata.normalize("NFC", part.strip()) for part in parts if part.strip()]


def _header(path: Path, rows: list[tuple[int, list[str]]]) -> tuple[int, int]:
    numbers = [int(field) if _is_number(field) else 0 for field in rows[0][1]] if rows else []
    if not 1 <= len(numbers) <= 2 or min(numbers) < 1:
        raise PairsError(
            f"{path} is no LFW pairs file: its first line must hold the number of folds and of pairs, such as `10 300`."
        )
    return (1, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def _pair(where: str, fields: list[str], fold: int, *, same: bool) -> Pair:
    numbers = fields[1:] if same else fields[1::2]
    if len(fields) != (3 if same else 4) or not all(map(_is_number, numbers)):
        form = "`Name 1 2`, two pictures of one person" if same else "`Name 1 Other_Name 2`, pictures of two people"
        raise PairsError(f"{where}: {' '.join(fields)!r} is not {form}.")
    left = PictureName(fields[0], int(numbers[0]))
    right = PictureName(fields[0] if same else fields[2], int(numbers[1]))
    if left == right or (left.person == right.person) != same:
        raise PairsError(f"{where}: {' '.join(fields)!r} does not name two {'pictures' if same else 'people'}.")
    return Pair(fold, left, right)


def _is_number(field: str) -> bool:
    return field.isdecimal() and len(field) < 10
