"""The comparisons of one ``DATA_DIR``: in PostgreSQL, and on the local disk while that is away."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matchers.base import source_id
from matchers.errors import StoreUnavailable
from matchers.pgvector import PgvectorStore
from matchers.recording.record import Record, Redaction
from matchers.recording.spool import Spool
from matchers.recording.table import ComparisonTable, Retention


class ComparisonLog:
    """Writes, forgets and prunes. Thread-safe; several processes may use one folder.

    Attributes:
        spool: what waits on the disk.
        table: what is in PostgreSQL; None: there is none.
    """

    def __init__(
        self, root: Path, pgvector: PgvectorStore | None, retention: Retention, spool_bytes: int = 64 * 2**20
    ) -> None:
        """``root``: folder of what waits; ``spool_bytes``: how large that may be."""
        self.spool = Spool(root, spool_bytes)
        self.table = None if pgvector is None else ComparisonTable(pgvector.database, retention)

    def write(self, records: Sequence[Record]) -> None:
        """Keep ``records``, in PostgreSQL.

        Raises:
            StoreUnavailable: it does not answer; nothing was kept.
        """
        self.spool.write(records, self._table().write)

    def replay(self) -> bool:
        """Bring a part of what waits to PostgreSQL; whether there was any.

        Raises:
            StoreUnavailable: it does not answer; nothing is lost.
        """
        return self.spool.replay(self._table().write)

    def prune(self) -> None:
        """Delete from PostgreSQL what is too old or too much.

        Raises:
            StoreUnavailable: it does not answer.
        """
        self._table().prune()

    def redact(self, domain: str, sources: Iterable[str] | None, people: Iterable[str] = ()) -> None:
        """Take pictures and people out of what is not in PostgreSQL yet, in every worker; None: all of the domain.

        Raises:
            StoreUnavailable: the folder cannot be written.
        """
        kept = None if sources is None else frozenset(map(source_id, sources))
        if kept is None or kept or people:
            self.spool.redact(Redaction(time.time(), domain, kept, frozenset(map(source_id, people))))
            self._mark()

    def forget(self, domain: str, sources: Iterable[str] | None, people: Iterable[str] = (), *, erase: bool) -> None:
        """Take them out of what is in PostgreSQL; ``erase``: leave no trace in the database's files.

        Raises:
            StoreUnavailable: it does not answer, or the folder cannot be written.
        """
        if self.table is None:
            return
        if sources is None:
            self.table.drop(domain)
        else:
            self.table.forget(domain, sources, people, thorough=erase)
        self._mark()

    def forgotten(self) -> bytes:
        """Another one after anything was taken out, in whichever process: what was read before then is out of date.

        Raises:
            StoreUnavailable: the folder cannot be read.
        """
        try:
            return self._forgotten.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise StoreUnavailable(f"{self._forgotten} cannot be read: {error.strerror}") from error

    def rename(self, domain: str, person: str, sources: Mapping[str, str]) -> None:
        """In PostgreSQL, the pictures ``sources`` (old name to new name) are ``person``'s from now on.

        Raises:
            StoreUnavailable: it does not answer.
        """
        if self.table is not None:
            self.table.rename(domain, person, sources)

    def _mark(self) -> None:
        try:
            self.spool.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._forgotten, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(descriptor, os.urandom(16), 0)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreUnavailable(f"{self._forgotten} cannot be written: {error.strerror}") from error

    @property
    def _forgotten(self) -> Path:
        return self.spool.root / "forgotten"

    def _table(self) -> ComparisonTable:
        if self.table is None:
            raise StoreUnavailable("no pgvector store is open")
        return self.table
