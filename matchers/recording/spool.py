"""Records that wait on the local disk while PostgreSQL is away, and what must not be told any more.

Under ``DATA_DIR/comparisons`` lie segments of one record a line, and ``redactions``, one a line. Every worker of the
machine adds to the last segment; whoever finds PostgreSQL back empties them. A line is whole or is passed over, so a
process may be killed at any moment; a segment that is emptied twice gives the same rows.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from matchers.errors import StoreUnavailable
from matchers.files import remove_all_parts, written_atomically
from matchers.recording.record import (
    Record,
    Redaction,
    decode,
    decode_redaction,
    encode,
    encode_redaction,
    redacted,
)

_SEGMENT_BYTES = 2 * 2**20
_BATCH = 500
_LOCK_SECONDS = 30.0
# No record stays in a worker's memory for so long, not even when PostgreSQL hangs.
_REDACTION_SECONDS = 900.0
_Stamp = tuple[int, int, int]
T = TypeVar("T")

_log = logging.getLogger("matchers.recording")


class Spool:
    """The local files of one ``DATA_DIR``. Thread-safe; several processes may use them."""

    def __init__(self, root: Path, limit: int = 64 * 2**20) -> None:
        """``root``: folder of the files, made with the first one; ``limit``: bytes that they may have together."""
        self.root = root
        self.limit = limit
        self._known: tuple[_Stamp | None, tuple[Redaction, ...]] = (None, ())

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(_size(path) for path in self._segments())

    def waiting(self) -> int:
        """How many records wait. Reads the segments."""
        return sum(_lines_in(path) for path in self._segments())

    def add(self, records: Sequence[Record]) -> int:
        """Keep ``records``; gives how many of them found no room.

        Raises:
            StoreUnavailable: the disk is full, or the folder cannot be written; none was kept.
        """
        with self._locked(fcntl.LOCK_EX):
            lines = [encode(kept) for one in records if (kept := redacted(one, self.redactions())) is not None]
            room = self.limit - self.size
            fitting = 0
            for line in lines:
                room -= len(line)
                if room < 0:
                    break
                fitting += 1
            if fitting:
                _append(self._last_segment(), b"".join(lines[:fitting]))
            return len(lines) - fitting

    def replay(self, write: Callable[[Sequence[Record]], None]) -> bool:
        """Hand the oldest segment to ``write`` in batches, and delete it; whether there was one to work on.

        Nothing is lost when ``write`` fails or the process is killed: all of the segment comes again.

        Raises:
            StoreUnavailable: from ``write``, or the files cannot be read.
        """
        if not self._segments():
            return False
        with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB) as free:
            segments = self._segments()
            if not free or not segments:
                return False
            records = list(_records(segments[0]))
            for start in range(0, len(records), _BATCH):
                write(records[start : start + _BATCH])
            segments[0].unlink(missing_ok=True)
            return True

    def write(self, records: Sequence[Record], write: Callable[[Sequence[Record]], None]) -> None:
        """Hand ``records`` to ``write`` without what must not be told; no redaction comes in between.

        Raises:
            StoreUnavailable: from ``write``.
        """
        with self._locked(fcntl.LOCK_SH):
            redactions = self.redactions()
            kept = [one for record in records if (one := redacted(record, redactions)) is not None]
            if kept:
                write(kept)

    def redact(self, redaction: Redaction) -> None:
        """Take what ``redaction`` names out of what waits, and out of what workers still have in their memory.

        Raises:
            StoreUnavailable: the files cannot be written.
        """
        with self._locked(fcntl.LOCK_EX):
            remove_all_parts(self.root)
            kept = [one for one in self.redactions() if one.at > time.time() - _REDACTION_SECONDS]
            with written_atomically(self._redactions) as file:
                file.write(b"".join(map(encode_redaction, [*kept, redaction])))
            for segment in self._segments():
                self._redact(segment, redaction)

    def redactions(self) -> tuple[Redaction, ...]:
        """What must not be told, of the last quarter of an hour."""
        stamp = _stamp(self._redactions)
        known, redactions = self._known
        if stamp is None:
            return ()
        if stamp != known:
            redactions = tuple(_lines(self._redactions, decode_redaction))
            self._known = stamp, redactions
        return redactions

    def _redact(self, segment: Path, redaction: Redaction) -> None:
        records = list(_records(segment))
        if not any(redaction.hits(record) for record in records):
            return
        kept = [one for record in records if (one := redacted(record, (redaction,))) is not None]
        with written_atomically(segment) as file:
            file.write(b"".join(map(encode, kept)))

    @property
    def _redactions(self) -> Path:
        return self.root / "redactions"

    def _segments(self) -> list[Path]:
        return sorted(path for path in self.root.glob("*.jsonl") if path.stem.isdecimal())

    def _last_segment(self) -> Path:
        segments = self._segments()
        if segments and _size(segments[-1]) < _SEGMENT_BYTES:
            return segments[-1]
        number = int(segments[-1].stem) + 1 if segments else 1
        return self.root / f"{number:09}.jsonl"

    @contextmanager
    def _locked(self, kind: int) -> Iterator[bool]:
        """Whether the lock was got; always, unless ``kind`` is not to wait."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                yield _lock(descriptor, kind)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreUnavailable(f"{self.root} cannot be written: {error.strerror or error}") from error


def _lock(descriptor: int, kind: int) -> bool:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError as error:
            if kind & fcntl.LOCK_NB:
                return False
            if time.monotonic() > deadline:
                raise TimeoutError(0, "another process does not let go of it") from error
            time.sleep(0.005)


def _append(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        size = os.fstat(descriptor).st_size
        cut_short = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        file.write(b"\n" * cut_short + data)


def _records(path: Path) -> Iterator[Record]:
    return _lines(path, decode)


def _lines(path: Path, read: Callable[[bytes], T]) -> Iterator[T]:
    for line in path.read_bytes().splitlines():
        if not line:
            continue
        try:
            yield read(line)
        except ValueError:
            _log.warning("a line of %s was cut short and is passed over", path)


def _lines_in(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        # Another process has brought it to PostgreSQL meanwhile.
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
