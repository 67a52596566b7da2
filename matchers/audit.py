"""Who changed how a domain is searched, when, from what to what, and on which figures.

One file per domain under ``DATA_DIR/audit``, one JSON object a line, only ever appended to.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from matchers.errors import StoreUnavailable
from matchers.files import locked
from matchers.gates import GateResult
from matchers.names import domain_name
from models.settings import Settings

AUTOMATIC = "automatic"
"""Who the service itself is."""

_log = logging.getLogger("matchers.audit")


@dataclass(frozen=True, slots=True)
class ModeChange:
    """One change.

    Attributes:
        at: when, ISO 8601 in UTC.
        who: name of the token, ``command line (USER)``, or :data:`AUTOMATIC`.
        before, after: modes; what answers said while pgvector failed is one here, too.
        sample: share of requests that ``dual`` searches in both stores from then on.
        forced: the gates did not hold, or were not known, and it was done all the same.
        gates: the figures at that moment; None where they were not asked for.
    """

    at: str
    who: str
    before: str
    after: str
    sample: float = 1.0
    forced: bool = False
    gates: tuple[GateResult, ...] | None = None


_JSON = TypeAdapter(ModeChange)


class AuditLog:
    """The changes of all domains. Thread-safe; several processes may write."""

    def __init__(self, root: Path) -> None:
        """``root``: folder of the files, made with the first one."""
        self.root = root

    def append(self, domain: str, change: ModeChange) -> None:
        """Put ``change`` on the disk.

        Raises:
            StoreUnavailable: the file cannot be written; nothing was.
        """
        with self._opened(domain) as descriptor:
            _write(descriptor, change)

    def append_automatic(self, domain: str, before: str, after: str) -> bool:
        """Note what the service did by itself; whether it was noted here.

        Another worker may have noted it already, or somebody may have set another mode since: then it is not what
        comes next in the log, and stays out.

        Raises:
            StoreUnavailable: the file cannot be written.
        """
        with self._opened(domain) as descriptor:
            last = next(iter(self.read(domain, 1)), None)
            if last is not None and last.after != before:
                return False
            _write(descriptor, ModeChange(now(), AUTOMATIC, before, after))
            return True

    def read(self, domain: str, limit: int = 1000) -> list[ModeChange]:
        """At most ``limit`` changes of ``domain``, the newest first; a line that a crash cut short is passed over.

        Raises:
            StoreUnavailable: the file cannot be read.
        """
        try:
            lines = self._path(domain).read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreUnavailable(f"{self._path(domain)} cannot be read: {error.strerror}") from error
        changes: list[ModeChange] = []
        for line in reversed(lines):
            if len(changes) == limit:
                break
            try:
                changes.append(_JSON.validate_json(line))
            except ValidationError:
                _log.warning("a line of %s cannot be read and is passed over", self._path(domain))
        return changes

    @contextmanager
    def _opened(self, domain: str) -> Iterator[int]:
        path = self._path(domain)
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(path, os.O_APPEND) as descriptor:
                yield descriptor
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be written: {error.strerror}") from error

    def _path(self, domain: str) -> Path:
        return self.root / f"{domain_name(domain)}.jsonl"


def open_audit(settings: Settings) -> AuditLog:
    """The log under ``DATA_DIR/audit``."""
    return AuditLog(settings.data_dir / "audit")


def now() -> str:
    """This moment, ISO 8601 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _write(descriptor: int, change: ModeChange) -> None:
    size = os.fstat(descriptor).st_size
    cut_short = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    rest = b"\n" * cut_short + _JSON.dump_json(change) + b"\n"
    try:
        while rest:
            # A disk that gets full takes a part, and says so only when it is given the next one.
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
