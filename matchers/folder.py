"""A gallery as a folder: one subfolder per person, pictures in it."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from matchers.errors import InvalidName, MatcherError
from matchers.names import person_name

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_NOT_READ = frozenset({".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl"})


class FolderError(MatcherError):
    """A folder of pictures is missing, unreadable or holds nothing to enrol."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture file of a person.

    Attributes:
        person: the name of its folder, Unicode NFC.
        source: path relative to the gallery root, ``/`` between parts, Unicode NFC.
        path: the file.
        digest: sha1 of the file's bytes, lower-case hex.
    """

    person: str
    source: str
    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A picture, or a person's folder, that was left out.

    Attributes:
        source: path relative to the gallery root, ``/`` between parts.
        reason: why, in words.
    """

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Folder:
    """What a gallery folder holds.

    Attributes:
        pictures: by source, sorted.
        problems: what was left out.
        unread: sources and persons (ending in ``/``) that exist and could not be read just now.
    """

    pictures: dict[str, Picture]
    problems: tuple[Problem, ...]
    unread: frozenset[str]

    def may_hold(self, source: str) -> bool:
        """Whether ``source`` is in the folder or could be, had everything been readable."""
        return source in self.pictures or source in self.unread or source.partition("/")[0] + "/" in self.unread


def read_folder(root: Path) -> Folder:
    """List ``root/<person>/<picture>`` with the digest of every picture.

    Hidden files and files that are no pictures are passed over; pictures in deeper folders or in a format that is not
    read, and links that lead out of ``root``, are reported and not followed.

    Raises:
        FolderError: ``root`` is missing, is no folder or cannot be listed.
    """
    if not root.is_dir():
        raise FolderError(f"{root} is not a folder. Name the folder that holds one subfolder per person.")
    reader = _Reader(root.resolve())
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise FolderError(f"{root} cannot be listed: {error.strerror}.") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            reader.read_person(entry)
        elif entry.suffix.lower() in SUFFIXES:
            reader.problem(entry.name, "The picture is in no person's folder. Move it into one.")
    return Folder(
        dict(sorted(reader.pictures.items())),
        tuple(sorted(reader.problems, key=lambda problem: problem.source)),
        frozenset(reader.unread),
    )


class _Reader:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.pictures: dict[str, Picture] = {}
        self.problems: list[Problem] = []
        self.unread: set[str] = set()

    def problem(self, source: str, reason: str) -> None:
        # A terminal would obey some letters, and bytes that are no text cannot be printed.
        printable = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in source)
        self.problems.append(Problem(printable, reason))

    def read_person(self, folder: Path) -> None:
        try:
            person = person_name(folder.name)
        except InvalidName as error:
            self.problem(f"{folder.name}/", str(error))
            return
        if self._leads_out(folder):
            self.problem(f"{folder.name}/", "The folder is a link that leads out of the gallery.")
            return
        try:
            entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            self.unread.add(f"{person}/")
            self.problem(f"{folder.name}/", f"The folder cannot be listed: {error.strerror}.")
            return
        for entry in entries:
            suffix = entry.suffix.lower()
            if suffix in SUFFIXES and entry.is_file():
                self._read_picture(person, entry)
            elif suffix in _NOT_READ and entry.is_file():
                reason = f"{suffix[1:].upper()} is not read. Save it as JPEG, PNG, WebP, BMP or TIFF."
                self.problem(f"{person}/{entry.name}", reason)
            elif entry.is_dir() and _holds_pictures(entry):
                reason = "Pictures in a folder below a person's are not read. Move them into the person's folder."
                self.problem(f"{person}/{entry.name}/", reason)

    def _read_picture(self, person: str, path: Path) -> None:
        source = f"{person}/{unicodedata.normalize('NFC', path.name)}"
        if not source.isprintable():
            self.problem(source, "The file's name is not readable text. Rename it.")
        elif source in self.pictures:
            self.problem(source, "Another picture has the same name in another Unicode form. Rename one.")
        elif self._leads_out(path):
            self.problem(source, "The file is a link that leads out of the gallery.")
        else:
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
            except OSError as error:
                self.unread.add(source)
                self.problem(source, f"The file cannot be read: {error.strerror}.")
            else:
                self.pictures[source] = Picture(person, source, path, digest)

    def _leads_out(self, path: Path) -> bool:
        return path.is_symlink() and not path.resolve().is_relative_to(self.root)


def _holds_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES and path.is_file() for path in folder.rglob("*"))
