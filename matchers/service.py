"""The stores that the settings name, opened in one place and closed together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from matchers.embedded import EmbeddedPostgres
from matchers.errors import NoPgvector, StoreUnavailable, UnknownDomain
from matchers.gallery import PklStore
from matchers.jobs import JobFolder
from matchers.pgvector import PgvectorStore
from matchers.recording.log import ComparisonLog
from matchers.recording.table import Retention
from matchers.thumbnails import Thumbnails
from models.card import ModelCard
from models.settings import Settings

_log = logging.getLogger("matchers.service")


@dataclass(frozen=True, slots=True)
class Stores:
    """The open stores.

    Attributes:
        pkl: the PKL galleries, always there.
        pgvector: None when it is switched off, or when it could not be opened at all.
        pgvector_error: why ``pgvector`` is None although it is switched on, otherwise "".
        retention: how long comparisons are kept.
        spool_bytes: how much of them may wait on the disk while PostgreSQL is away.
    """

    pkl: PklStore
    pgvector: PgvectorStore | None
    pgvector_error: str = ""
    retention: Retention = field(default_factory=Retention)
    spool_bytes: int = 64 * 2**20

    def needed_pgvector(self) -> PgvectorStore:
        """pgvector, for what cannot be done without it.

        Raises:
            NoPgvector: it is switched off.
            StoreUnavailable: it could not be opened.
        """
        if self.pgvector is not None:
            return self.pgvector
        if self.pgvector_error:
            raise StoreUnavailable(self.pgvector_error)
        raise NoPgvector("pgvector is switched off: VECTOR_DB_ENABLED is false")

    def require(self, domain: str) -> None:
        """Make sure that a store holds ``domain``, before a lock or a journal is made for it.

        Raises:
            UnknownDomain: none does.
            StoreUnavailable: the PKL galleries do not, and pgvector does not answer.
        """
        if self.pkl.path(domain).exists():
            return
        if self.pgvector is None and self.pgvector_error:
            raise StoreUnavailable(self.pgvector_error)
        if self.pgvector is None or domain not in self.pgvector.domains():
            raise UnknownDomain(f"there is no domain {domain!r}")

    @property
    def data_dir(self) -> Path:
        """The folder that holds all of this."""
        return self.pkl.root.parent

    @property
    def journal(self) -> Path:
        """Folder of unfinished changes, see ``matchers.journal``."""
        return self.data_dir / "journal"

    @property
    def jobs(self) -> JobFolder:
        """Long work that runs, and reports of what has ended."""
        return JobFolder(self.data_dir / "jobs")

    @property
    def comparisons(self) -> ComparisonLog:
        """What the answers of dual mode said."""
        return ComparisonLog(self.data_dir / "comparisons", self.pgvector, self.retention, self.spool_bytes)

    @property
    def thumbnails(self) -> Thumbnails:
        """Small pictures of the enrolled faces."""
        return Thumbnails(self.data_dir / "thumbnails")


@contextmanager
def open_stores(settings: Settings, embedder: ModelCard, detector: str) -> Iterator[Stores]:
    """Open the PKL galleries under ``DATA_DIR/galleries`` and, unless switched off, pgvector.

    Without a ``DATABASE_URL`` the embedded PostgreSQL is started, and stopped at the end; when it does not start, it is
    tried again in the background, and pgvector answers once it is up. A pgvector that cannot be opened at all is no
    error: the log says why, PKL serves alone.

    Args:
        embedder: card of the model whose embeddings the stores hold.
        detector: name of the detector, part of the gallery files' names.
    """
    pkl = PklStore(settings.data_dir / "galleries", embedder, detector)
    retention = Retention(settings.comparison_retention_days, settings.comparison_limit)
    opened = partial(Stores, retention=retention, spool_bytes=settings.comparison_journal_mb * 2**20)
    with ExitStack() as stack:
        if not settings.vector_db_enabled:
            yield opened(pkl, None)
            return
        try:
            pgvector = _open_pgvector(settings, embedder, stack)
        except StoreUnavailable as error:
            _log.warning("pgvector cannot be opened, PKL serves alone: %s", error)
            yield opened(pkl, None, str(error))
        else:
            yield opened(pkl, pgvector)


def _open_pgvector(settings: Settings, embedder: ModelCard, stack: ExitStack) -> PgvectorStore:
    conninfo: str | Callable[[], str] = settings.database_url
    if not conninfo:
        server = EmbeddedPostgres(settings.data_dir)
        stack.callback(server.stop)
        server.start_or_retry()
        conninfo = server.conninfo
    store = PgvectorStore(conninfo, embedder, settings.pgvector_timeout)
    store.open()
    stack.callback(store.close)
    return store
