"""A token file that gets one more entry."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from matchers.files import held, written_atomically
from server.tokens import TokenFileError, parse_tokens


def add_token(path: Path, entry: str) -> None:
    """Add ``entry`` to the file, which keeps its owner and its mode; of several at once none is lost.

    A file that is not there is made for its owner only.

    Raises:
        TokenFileError: the file cannot be read or written, is of somebody whose it would not be any more, or an entry
            is wrong; nothing was changed.
    """
    try:
        # A link stays, and what it leads to is changed.
        file = path.resolve()
        with held(os.open(file.parent, os.O_RDONLY | os.O_CLOEXEC)):
            _add(file, entry, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise TokenFileError(f"the token file {path} cannot be changed: {error}") from error


def _add(path: Path, entry: str, where: str) -> None:
    status = path.stat() if path.exists() else None
    present = path.read_text("utf-8").rstrip() + "\n\n" if status is not None else ""
    parse_tokens(present + entry, where)
    with written_atomically(path) as file:
        file.write((present + entry).encode())
        if status is not None:
            # The service may run as another user than whoever makes tokens.
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
