"""Files that are whole or not there."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias

from matchers.errors import GalleryError

Stamp: TypeAlias = tuple[int, int, int]
_SUFFIX = ".part"


@contextmanager
def written_atomically(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file that takes its name ``path`` only once it is written and on the disk; on an error nothing changes.

    Not ``durable``: a power cut may leave it with zeros in place of what was written, so its reader must find that out.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_SUFFIX, dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            # The kernel's own times are coarse; a clock's nanoseconds tell two quick replacements apart.
            os.utime(file.fileno(), ns=(time.time_ns(), time.time_ns()))
            if durable:
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def open_regular(path: Path, limit: int) -> Iterator[IO[bytes]]:
    """An existing file of at most ``limit`` bytes, open for reading; pipes and devices, which never end, are refused.

    Raises:
        GalleryError: there is no such file, or it cannot be read.
    """
    try:
        # Without O_NONBLOCK a named pipe would wait for a writer.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise GalleryError(f"{error.strerror}") from error
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise GalleryError(f"it is no file of at most {limit:,} bytes")
        yield file


@contextmanager
def locked(path: Path, flags: int = 0) -> Iterator[int]:
    """A file, made where it is not there, open and locked: whoever else locks it waits until all is done here.

    Args:
        flags: of :func:`os.open`, besides those to read, write and make it.

    Raises:
        OSError: it cannot be opened.
    """
    with held(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)) as descriptor:
        yield descriptor


@contextmanager
def held(descriptor: int) -> Iterator[int]:
    """An open file or folder, locked as by :func:`locked`; closed in the end."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def stamp_of(path: Path) -> Stamp | None:
    """What differs once another file has taken the place of this one; None where there is no file.

    Raises:
        GalleryError: that cannot be told.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise GalleryError(f"{path} cannot be read: {error.strerror}") from error
    return status.st_mtime_ns, status.st_size, status.st_ino


def remove_parts(path: Path) -> None:
    """Delete what a process that was killed in :func:`written_atomically` left. Nobody may be writing ``path``."""
    for entry in path.parent.iterdir():
        if entry.name.startswith(f".{path.name}.") and entry.suffix == _SUFFIX:
            entry.unlink(missing_ok=True)


def remove_all_parts(folder: Path) -> None:
    """The same for every file of ``folder``. Nobody may be writing there."""
    for entry in folder.iterdir():
        if entry.name.startswith(".") and entry.suffix == _SUFFIX:
            entry.unlink(missing_ok=True)
