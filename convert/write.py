"""Files that appear complete or not at all, with their sha256 beside them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from convert.errors import ConvertError
from models.store import sidecar

_TEMPORARY = ".partial-"


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary file beside ``path``, sync it, and put it in the place of ``path``.

    Raises:
        ConvertError: the disk is full, or the folder cannot be written; no part of the file is left.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise ConvertError(f"{path} cannot be written: {error}. Free space or choose another folder.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_model(path: Path, data: bytes) -> str:
    """Write a model file and its ``.sha256``; return the sha256.

    The old sha256 goes first: after an interruption the file counts as not verified instead of as wrong.
    """
    digest = hashlib.sha256(data).hexdigest()
    sidecar(path).unlink(missing_ok=True)
    write_atomic(path, data)
    try:
        write_atomic(sidecar(path), f"{digest}  {path.name}\n".encode())
    except ConvertError:
        path.unlink()
        raise
    return digest


@contextlib.contextmanager
def exclusive(folder: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold ``folder`` for this process alone; remove what an interrupted process left in it.

    Args:
        folder: made when it is missing.
        on_wait: called once when another process holds the folder.

    Raises:
        ConvertError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as error:
        raise ConvertError(f"{folder} cannot be written: {error}. Choose another with --models-dir.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.rglob(f"{_TEMPORARY}*"):
            left.unlink(missing_ok=True)
        yield
