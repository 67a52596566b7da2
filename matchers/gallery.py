"""Galleries in DeepFace's record schema: one PKL file per domain, searched exactly.

A large gallery has a file beside it that is mapped into memory and scanned there, see :mod:`matchers.matrix_file`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from matchers.base import Entry, FloatArray, GalleryFace, Match
from matchers.columns import Change, Columns, raw, text
from matchers.errors import GalleryError, StoreUnavailable, UnknownDomain
from matchers.files import Stamp, locked, remove_parts, stamp_of, written_atomically
from matchers.gallery_names import gallery_file
from matchers.matrix_file import matrix_path, open_matrix, write_matrix
from matchers.names import domain_name, is_domain_name
from matchers.record_bytes import BEGIN, END, encoded
from matchers.records import check_face, read_gallery
from matchers.scan import nearest
from matchers.sources import written_prefix
from models.card import ModelCard

_CHECK_SECONDS = 0.2
# A smaller gallery is read from its .pkl in well under a second.
_MAPPED_FROM = 2000
_NO_STAMP: Stamp = (0, 0, 0)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Gallery:
    """A gallery in memory, or mapped there, and the file that it was read from."""

    stamp: Stamp
    columns: Columns


@dataclass(slots=True, eq=False)
class _Slot:
    """What is known of a domain's file; ``lock`` is held by the thread that reads it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    gallery: _Gallery | None = None
    checked: float = -math.inf
    refused: tuple[Stamp, str] | None = None


class PklStore:
    """PKL galleries under ``root/<domain>/``, read anew when another process replaces a file. Thread-safe.

    A replaced file that cannot be read is logged, and the last good gallery keeps answering.
    """

    def __init__(self, root: Path, embedder: ModelCard, detector: str, mapped_from: int = _MAPPED_FROM) -> None:
        """``detector``: name of its card; as DeepFace calls it, it becomes part of the file names.

        ``mapped_from``: so many faces get a file beside their gallery that is mapped into memory.
        """
        self.root = root
        self._dimension = embedder.dimension
        self._mapped_from = mapped_from
        self._file = gallery_file(embedder.name, detector)
        self._slots: dict[str, _Slot] = {}

    def path(self, domain: str) -> Path:
        """The gallery file of a domain, whether it is there or not."""
        return self.root / domain_name(domain) / self._file

    def domains(self) -> list[str]:
        """Names of the domains held, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(
            entry.parent.name for entry in self.root.glob(f"*/{self._file}") if is_domain_name(entry.parent.name)
        )

    def inventory(self, domain: str) -> Mapping[str, str]:
        """``{source: digest}`` of every picture enrolled; empty when there is no such domain."""
        return {entry.source: entry.digest for entry in self.entries(domain)}

    def count(self, domain: str) -> int:
        """How many faces are enrolled; 0 when there is no such domain."""
        gallery = self._current(domain, fresh=True)
        return 0 if gallery is None else len(gallery.columns)

    def entries(self, domain: str) -> list[Entry]:
        """Every enrolled face without its embedding, sorted by source."""
        gallery = self._current(domain, fresh=True)
        return [] if gallery is None else gallery.columns.entries()

    def faces(self, domain: str, person: str | None = None) -> list[GalleryFace]:
        """Every enrolled face, or those of one person, sorted by source."""
        gallery = self._current(domain, fresh=True)
        return [] if gallery is None else gallery.columns.faces(person)

    def search(self, embeddings: FloatArray, domain: str, threshold: float | None, top_k: int) -> list[list[Match]]:
        """The nearest ``top_k`` faces for each row of ``embeddings`` ((n, d) float32, unit rows), nearest first.

        Faces at equal distance come in the order of their sources.

        Raises:
            UnknownDomain: there is no gallery of that domain.
            GalleryError: the gallery cannot be read, or the embeddings are of another shape than its own.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self._dimension:
            raise GalleryError(f"embeddings of shape {embeddings.shape} do not fit a gallery of (n, {self._dimension})")
        gallery = self._current(domain)
        if gallery is None:
            raise UnknownDomain(f"there is no PKL gallery of domain {domain!r}")
        columns = gallery.columns
        answers = []
        for indexes, distances in nearest(embeddings, columns.rows, columns.codes, top_k):
            near = zip(indexes.tolist(), distances.tolist(), strict=True)
            found = [(columns.face(index), distance) for index, distance in near]
            answers.append(
                [
                    Match(face.person, distance, face.source)
                    for face, distance in found
                    if threshold is None or distance <= threshold
                ]
            )
        return answers

    def unreadable(self) -> list[str]:
        """Domains that were asked for and whose file cannot be used at present, whether the one read before it still
        answers or not."""
        for domain, slot in list(self._slots.items()):
            if slot.refused is not None:
                with suppress(GalleryError):
                    self._current(domain)
        return sorted(domain for domain, slot in list(self._slots.items()) if slot.refused is not None)

    def forget(self) -> None:
        """Read every gallery anew at its next use; until that is done the one in memory answers."""
        for slot in list(self._slots.values()):
            with slot.lock:
                slot.refused = None
                slot.checked = -math.inf
                if slot.gallery is not None:
                    slot.gallery = replace(slot.gallery, stamp=_NO_STAMP)

    def apply(self, domain: str, upsert: Sequence[GalleryFace], remove: Iterable[str]) -> None:
        """In one atomic step drop the faces of the sources in ``remove`` and ``upsert``, then add ``upsert``.

        Raises:
            GalleryError: a face does not fit this store, or the file on disk cannot be read; nothing was changed.
            StoreUnavailable: the file cannot be written; nothing was changed.
        """
        for face in upsert:
            check_face(face, self._dimension)
        gone = {*remove, *(face.source for face in upsert)}
        added = Columns.of(upsert, self._dimension)
        with self._writing(domain) as path:
            change = Change.of(self._on_disk(domain, path), added, gone)
            matrix_path(path).unlink(missing_ok=True)
            _write(path, change)
            gallery = _Gallery(stamp_of(path) or _NO_STAMP, self._laid_out(path, change))
        slot = self._slots.setdefault(domain, _Slot())
        with slot.lock:
            slot.gallery, slot.checked = gallery, -math.inf

    def drop(self, domain: str) -> None:
        """Delete a domain with all its faces; nothing happens when there is none.

        Galleries of other embedders or detectors, and whatever else lies in the domain's folder, stay.

        Raises:
            StoreUnavailable: the file cannot be deleted.
        """
        if not self.path(domain).parent.is_dir():
            return
        with self._writing(domain) as path:
            matrix_path(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
        self._slots.pop(domain, None)

    @contextmanager
    def _writing(self, domain: str) -> Iterator[Path]:
        """One process at a time changes a domain's gallery."""
        path = self.path(domain)
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self.root / f".{domain}.lock"):
                path.parent.mkdir(exist_ok=True)
                remove_parts(path)
                remove_parts(matrix_path(path))
                yield path
        except OSError as error:
            raise StoreUnavailable(f"the gallery {path} cannot be written: {error.strerror}") from error

    def _on_disk(self, domain: str, path: Path) -> Columns:
        stamp = stamp_of(path)
        if stamp is None:
            return Columns.of((), self._dimension)
        slot = self._slots.get(domain)
        gallery = slot.gallery if slot is not None else None
        if gallery is not None and gallery.stamp == stamp:
            return gallery.columns
        return self._mapped(path) or self._read(path)

    def _current(self, domain: str, *, fresh: bool = False) -> _Gallery | None:
        path = self.path(domain)
        slot = self._slots.get(domain)
        if slot is None:
            if stamp_of(path) is None:
                return None
            slot = self._slots.setdefault(domain, _Slot())
        gallery = slot.gallery
        if gallery is not None and not fresh and time.monotonic() - slot.checked < _CHECK_SECONDS:
            return gallery
        # While one thread reads a new file, the others go on with the old one.
        if not slot.lock.acquire(blocking=fresh or gallery is None):
            return gallery
        try:
            return self._refresh(slot, domain, path)
        finally:
            slot.lock.release()

    def _refresh(self, slot: _Slot, domain: str, path: Path) -> _Gallery | None:
        slot.checked = time.monotonic()
        stamp = stamp_of(path)
        if stamp is None:
            slot.gallery = None
            self._slots.pop(domain, None)
            return None
        if slot.gallery is not None and slot.gallery.stamp == stamp:
            slot.refused = None
            return slot.gallery
        if slot.refused is None or slot.refused[0] != stamp:
            try:
                slot.gallery = self._load(domain, path, stamp)
            except GalleryError as error:
                slot.refused = stamp, str(error)
                if slot.gallery is not None:
                    _logger.warning(
                        "the new gallery of domain %s is left alone, the last one serves on: %s", domain, error
                    )
            else:
                slot.refused = None
        if slot.gallery is None and slot.refused is not None:
            raise GalleryError(slot.refused[1])
        return slot.gallery

    def _load(self, domain: str, path: Path, stamp: Stamp) -> _Gallery:
        """The gallery of a file, mapped where it can be; of several processes, one reads the file for all."""
        columns = self._mapped(path)
        if columns is None and (stamp[1] >= self._mapped_from * self._dimension or matrix_path(path).exists()):
            with suppress(OSError), locked(self.root / f".{domain}.lock"):
                columns = self._mapped(path)
                if columns is None:
                    columns = self._read(path)
                    if stamp_of(path) == stamp:
                        columns = self._laid_out(path, Change.none(columns))
        return _Gallery(stamp, columns if columns is not None else self._read(path))

    def _mapped(self, path: Path) -> Columns | None:
        columns = open_matrix(path)
        return columns if columns is not None and columns.rows.shape[1] == self._dimension else None

    def _laid_out(self, path: Path, change: Change) -> Columns:
        """What a gallery file holds by now; mapped from a file beside it when it is large."""
        if len(change) >= self._mapped_from:
            try:
                write_matrix(path, change)
            except OSError as error:
                _logger.warning("%s is kept in memory: no file can be written beside it: %s", path, error.strerror)
            else:
                if (columns := open_matrix(path)) is not None:
                    return columns
        else:
            matrix_path(path).unlink(missing_ok=True)
        return change.whole()

    def _read(self, path: Path) -> Columns:
        faces = read_gallery(path).faces
        if faces and len(faces[0].embedding) != self._dimension:
            raise GalleryError(
                f"{path} holds embeddings of {len(faces[0].embedding)} numbers, the embedder makes {self._dimension}: "
                "set EMBEDDER to the model that the gallery was made with, or run `python -m matchers sync` again"
            )
        return Columns.of(faces, self._dimension)


def _write(path: Path, change: Change) -> None:
    """Write a ``.pkl`` gallery that DeepFace up to 0.0.101 reads, atomically."""
    sources, digests = change.sources().raw(), change.digests().raw()
    prefix = raw(written_prefix([text(source) for source in sources], path.parent.name))
    with written_atomically(path) as file:
        file.write(BEGIN)
        for part in change.blocks():
            identities = [prefix + source for source in sources[part]]
            file.write(encoded(identities, digests[part], change.boxes(part), change.rows(part)))
        file.write(END)
