"""Both stores written as one, so that a crash at any point leaves them equal or knowingly different.

A writer holds the lock of its domain, puts its intent on the disk, writes the PKL gallery, then pgvector, and takes the
intent away. The next one who holds the lock finishes what a killed writer left. While pgvector is down the PKL gallery
is written all the same; what pgvector lacks stays in the journal (names of pictures, no embeddings) until it is back.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matchers.base import GalleryFace
from matchers.errors import GalleryError, StoreUnavailable
from matchers.intents import Intent, IntentFolder
from matchers.names import domain_name, is_domain_name
from matchers.pgvector import PgvectorStore
from matchers.service import Stores

_LOCK_SECONDS = 60.0
_BATCH = 500
_ROUNDING = 1e-6
_NO_PICTURES: Mapping[str, bytes] = {}

Progress = Callable[[int, int], None]

_log = logging.getLogger("matchers.journal")


def _silent(_done: int, _total: int) -> None:
    pass


class _Busy(StoreUnavailable):
    """Another writer holds the domain."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a change; the PKL gallery has it.

    Attributes:
        pgvector_error: why pgvector does not have it yet, "" when it has or is switched off. It gets it by itself.
    """

    pgvector_error: str = ""


def write_both(
    stores: Stores,
    domain: str,
    upsert: Sequence[GalleryFace],
    remove: Iterable[str],
    thumbnails: Mapping[str, bytes] = _NO_PICTURES,
) -> Written:
    """In both stores: drop every face of the sources in ``remove`` and of ``upsert``, then add ``upsert``.

    Creates the domain when it is new. Each store changes in one atomic step.

    Args:
        thumbnails: JPEG files by face id, kept for faces of ``upsert``.

    Raises:
        GalleryError: a face does not fit, or the PKL gallery cannot be read; nothing was changed.
        StoreUnavailable: the PKL gallery cannot be written, or another writer does not end; nothing was changed.
    """
    with writing(stores, domain) as writer:
        return writer.write(upsert, remove, thumbnails)


@contextmanager
def writing(stores: Stores, domain: str, wait: float = _LOCK_SECONDS) -> Iterator[DomainWriter]:
    """The only writer of a domain, on all threads and processes of this ``DATA_DIR``, after the work of those before
    it was finished.

    Raises:
        StoreUnavailable: another writer did not end within ``wait`` seconds, or the journal cannot be written.
        GalleryError: what a killed writer left cannot be finished.
    """
    writer = DomainWriter(stores, domain_name(domain))
    try:
        with _locked(_lock_path(stores, domain), wait):
            writer.recover()
            yield writer
    except OSError as error:
        raise StoreUnavailable(f"domain {domain!r} cannot be written: {error.strerror}") from error


def pending(stores: Stores) -> dict[str, int]:
    """How many changes wait for pgvector or were left by a killed writer, by domain; empty when all is finished."""
    domains = sorted(path.name for path in stores.journal.glob("[!.]*") if is_domain_name(path.name))
    counts = {domain: len(IntentFolder(_intents(stores, domain)).paths()) for domain in domains}
    return {domain: count for domain, count in counts.items() if count}


def recover(stores: Stores, wait: float = 0.0) -> dict[str, str]:
    """Finish whatever is pending; a domain that another writer holds for more than ``wait`` seconds is passed over.

    Returns:
        Why a domain is still pending, by domain; empty when all is finished.
    """
    errors = {}
    for domain in pending(stores):
        try:
            with writing(stores, domain, wait) as writer:
                if writer.pgvector_error:
                    errors[domain] = writer.pgvector_error
        except _Busy:
            continue
        except (StoreUnavailable, GalleryError) as error:
            errors[domain] = str(error)
    return errors


class DomainWriter:
    """Writes one domain; made by :func:`writing`.

    Attributes:
        pgvector_error: why pgvector lags behind at present, "" when it does not.
    """

    def __init__(self, stores: Stores, domain: str) -> None:
        self.stores = stores
        self.domain = domain
        self.pgvector_error = ""
        self._intents = IntentFolder(_intents(stores, domain))

    def write(
        self,
        upsert: Sequence[GalleryFace],
        remove: Iterable[str],
        thumbnails: Mapping[str, bytes] = _NO_PICTURES,
        *,
        erase: bool = False,
    ) -> Written:
        """See :func:`write_both`. ``erase``: leave no trace of what is taken out in the database's files."""
        sources = sorted({*remove, *(face.source for face in upsert)})
        intent = Intent("both", tuple(sources), tuple(upsert), erase)
        path = self._intents.add(intent)
        try:
            self.stores.thumbnails.write(self.domain, thumbnails)
            self._write_pkl(intent)
        except (OSError, GalleryError, StoreUnavailable):
            self.stores.thumbnails.remove(self.domain, thumbnails)
            self._intents.remove([path])
            raise
        self._tidy_thumbnails(sources)
        self._redact(sources)
        return self._finish_now(path, intent)

    def fill(
        self,
        upsert: Sequence[GalleryFace],
        sources: Collection[str],
        on_pkl: Progress = _silent,
        on_pgvector: Progress = _silent,
    ) -> Written:
        """Like :meth:`write`, for very many faces: the journal gets the names of pictures, not the embeddings.

        A writer that is killed before the PKL gallery has the faces leaves both stores as they were; afterwards
        pgvector gets what the PKL gallery has.

        Args:
            upsert: what the PKL gallery lacks.
            sources: the pictures that pgvector is to have as the PKL gallery has them, those of ``upsert`` among them.
            on_pkl, on_pgvector: called with the steps done and to do in each store.
        """
        intent = Intent("pgvector", tuple(sorted(sources)))
        path = self._intents.add(intent)
        try:
            on_pkl(0, len(upsert))
            if upsert:
                self.stores.pkl.apply(self.domain, upsert, ())
            on_pkl(len(upsert), len(upsert))
        except (GalleryError, StoreUnavailable):
            self._intents.remove([path])
            raise
        self._tidy_thumbnails({face.source for face in upsert})
        on_pgvector(0, len(sources))
        written = self._finish_now(path, intent)
        if not written.pgvector_error:
            on_pgvector(len(sources), len(sources))
        return written

    def drop(self) -> Written:
        """Delete the domain in both stores, with its thumbnails; nothing of it stays in the database's files."""
        intent = Intent("both", None, erase=True)
        path = self._intents.add(intent)
        try:
            self._write_pkl(intent)
        except StoreUnavailable:
            self._intents.remove([path])
            raise
        self._tidy_thumbnails(None)
        self._redact(None)
        return self._finish_now(path, intent)

    def write_pkl(self, upsert: Sequence[GalleryFace], remove: Iterable[str]) -> None:
        """Change the PKL gallery alone, to what pgvector holds; thumbnails of faces that are gone go as well.

        Raises:
            GalleryError, StoreUnavailable: nothing was changed.
        """
        sources = sorted({*remove, *(face.source for face in upsert)})
        self.stores.pkl.apply(self.domain, upsert, sources)
        self._tidy_thumbnails(sources)
        self.forget(sources)

    def forget(self, sources: Collection[str]) -> None:
        """Take those of ``sources`` that the PKL gallery does not hold out of the recorded comparisons.

        Raises:
            StoreUnavailable: pgvector does not answer, or the disk cannot be written.
        """
        self._redact(sources)
        self._forget(sources, erase=True)

    def recover(self) -> None:
        """Finish what is pending, as far as the stores can be reached."""
        left = list(self._intents.read())
        for path, intent in left:
            if intent.stage == "both":
                _log.warning("a writer of domain %s was interrupted; its change is completed", self.domain)
                self._write_pkl(intent)
                self._tidy_thumbnails(intent.sources)
                self._redact(intent.sources)
                self._intents.replace(path, intent.for_pgvector())
        if left:
            self._finish([(path, intent.for_pgvector()) for path, intent in left])

    def _write_pkl(self, intent: Intent) -> None:
        if intent.sources is None:
            self.stores.pkl.drop(self.domain)
        elif not self._pkl_has(intent):
            self.stores.pkl.apply(self.domain, intent.faces, intent.sources)

    def _pkl_has(self, intent: Intent) -> bool:
        """Whether the PKL gallery is already as the intent wants it: rewriting a large one costs more than a look."""
        if intent.sources is None or not self.stores.pkl.path(self.domain).exists():
            return False
        touched = set(intent.sources)
        held = {face.id: face for face in self.stores.pkl.faces(self.domain) if face.source in touched}
        wanted = {face.id: face for face in intent.faces}
        return held.keys() == wanted.keys() and all(_same(held[key], wanted[key]) for key in wanted)

    def _tidy_thumbnails(self, sources: Collection[str] | None) -> None:
        if sources is None:
            self.stores.thumbnails.drop(self.domain)
            return
        touched = set(sources)
        held = {face.id for face in self.stores.pkl.faces(self.domain) if face.source in touched}
        self.stores.thumbnails.keep_only(self.domain, touched, held)

    def _redact(self, sources: Collection[str] | None) -> None:
        """Recorded comparisons that are not in PostgreSQL yet shall not name what left the gallery."""
        if sources is None:
            self.stores.comparisons.redact(self.domain, None)
        else:
            self.stores.comparisons.redact(self.domain, *self._gone(sources))

    def _forget(self, sources: Collection[str] | None, *, erase: bool) -> None:
        """Nor those in PostgreSQL."""
        if sources is None:
            self.stores.comparisons.forget(self.domain, None, erase=erase)
            return
        pictures, people = self._gone(sources)
        if pictures:
            self.stores.comparisons.forget(self.domain, pictures, people, erase=erase)

    def _gone(self, sources: Collection[str]) -> tuple[list[str], list[str]]:
        """Those of ``sources`` that the PKL gallery does not hold, and the people who went with them."""
        held = self.stores.pkl.inventory(self.domain)
        pictures = sorted(source for source in set(sources) if source not in held)
        if not pictures:
            return [], []
        left = {face.person for face in self.stores.pkl.entries(self.domain)}
        return pictures, sorted({source.partition("/")[0] for source in pictures} - left)

    def _finish_now(self, path: Path, intent: Intent) -> Written:
        written = self._finish([(path, intent)])
        if written.pgvector_error:
            _log.warning("domain %s: pgvector gets a change later: %s", self.domain, written.pgvector_error)
        return written

    def _finish(self, intents: Sequence[tuple[Path, Intent]]) -> Written:
        """Bring pgvector to what the intents say, and forget them; keep them for later when it does not answer."""
        if any(intent.erase for _, intent in intents):
            # Reports of jobs name pictures, and so people.
            self.stores.jobs.forget(self.domain)
        if not self.pgvector_error:
            self.pgvector_error = self._bring_pgvector([intent for _, intent in intents])
        if self.pgvector_error:
            for path, intent in intents:
                if intent.stage == "both":
                    self._intents.replace(path, intent.for_pgvector())
        else:
            self._intents.remove([path for path, _ in intents])
        return Written(self.pgvector_error)

    def _bring_pgvector(self, intents: Sequence[Intent]) -> str:
        pgvector = self.stores.pgvector
        if pgvector is None:
            return self.stores.pgvector_error
        try:
            for intent in intents:
                self._write_pgvector(pgvector, intent)
                self._forget(intent.sources, erase=intent.erase)
            if any(intent.erase for intent in intents):
                pgvector.purge(self.domain)
        except (StoreUnavailable, GalleryError) as error:
            return str(error)
        return ""

    def _write_pgvector(self, pgvector: PgvectorStore, intent: Intent) -> None:
        there = self.stores.pkl.path(self.domain).exists()
        if intent.sources is None:
            pgvector.drop(self.domain)
            # Whatever was enrolled since under the same name is in the PKL gallery.
            faces = self.stores.pkl.faces(self.domain)
            for start in range(0, max(len(faces), int(there)), _BATCH):
                pgvector.apply(self.domain, faces[start : start + _BATCH], ())
        elif intent.stage == "both":
            pgvector.apply(self.domain, intent.faces, intent.sources)
        elif there:
            touched = set(intent.sources)
            faces = [face for face in self.stores.pkl.faces(self.domain) if face.source in touched]
            pgvector.apply(self.domain, faces, intent.sources)


def _same(one: GalleryFace, other: GalleryFace) -> bool:
    """Up to what a gallery file rounds."""
    if (one.person, one.digest, one.embedding.shape) != (other.person, other.digest, other.embedding.shape):
        return False
    return bool(np.abs(one.embedding - other.embedding).max() < _ROUNDING)


def _lock_path(stores: Stores, domain: str) -> Path:
    return stores.journal / f".{domain}.lock"


def _intents(stores: Stores, domain: str) -> Path:
    """Galleries of different models have journals of their own."""
    return stores.journal / domain / stores.pkl.path(domain).stem


@contextmanager
def _locked(path: Path, wait: float) -> Iterator[None]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise _Busy(f"another writer of {path.name[1:-5]} is at work; try again later") from error
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)
