"""Galleries in DeepFace's record schema: one PKL file per domain, searched exactly in memory."""

from __future__ import annotations

import fcntl
import logging
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from matchers.base import Entry, FloatArray, GalleryFace, Match
from matchers.errors import GalleryError, StoreUnavailable, UnknownDomain
from matchers.files import remove_parts
from matchers.names import domain_name, is_domain_name
from matchers.records import check_face, read_gallery, write_gallery
from models.card import ModelCard

_CHECK_SECONDS = 0.2
# More than float32 loses in a dot product of unit vectors.
_ROUNDING = 1e-5
_Stamp = tuple[int, int, int]
_NO_STAMP: _Stamp = (0, 0, 0)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Gallery:
    """A gallery in memory; faces sorted by source, ``matrix`` (n, d) float32 holds their embeddings."""

    stamp: _Stamp
    faces: tuple[GalleryFace, ...]
    matrix: FloatArray


@dataclass(slots=True, eq=False)
class _Slot:
    """What is known of a domain's file; ``lock`` is held by the thread that reads it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    gallery: _Gallery | None = None
    checked: float = -math.inf
    refused: tuple[_Stamp, str] | None = None


class PklStore:
    """PKL galleries under ``root/<domain>/``, read anew when another process replaces a file. Thread-safe.

    A replaced file that cannot be read is logged, and the last good gallery keeps answering.
    """

    def __init__(self, root: Path, embedder: ModelCard, detector: str) -> None:
        """``detector``: its name becomes part of the file names, as DeepFace has it."""
        self.root = root
        self._dimension = embedder.dimension
        self._file = f"ds_model_{embedder.name}_detector_{detector}_aligned_normalization_base_expand_0.pkl"
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
        return {face.source: face.digest for face in self.faces(domain)}

    def count(self, domain: str) -> int:
        """How many faces are enrolled; 0 when there is no such domain."""
        return len(self.faces(domain))

    def entries(self, domain: str) -> list[Entry]:
        """Every enrolled face without its embedding, sorted by source."""
        return [Entry(face.person, face.source, face.digest, face.box) for face in self.faces(domain)]

    def faces(self, domain: str, person: str | None = None) -> list[GalleryFace]:
        """Every enrolled face, or those of one person, sorted by source."""
        gallery = self._current(domain, fresh=True)
        if gallery is None:
            return []
        return [face for face in gallery.faces if person is None or face.person == person]

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
        if not gallery.faces or top_k < 1:
            return [[] for _ in embeddings]
        similarities = embeddings @ gallery.matrix.T
        return [
            _nearest(query, row, gallery, threshold, top_k) for query, row in zip(embeddings, similarities, strict=True)
        ]

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
        with self._writing(domain) as path:
            present = self._on_disk(domain, path)
            faces = _sorted([*(face for face in present if face.source not in gone), *upsert])
            write_gallery(path, faces)
            gallery = self._gallery(_stamp(path) or _NO_STAMP, faces)
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
            descriptor = os.open(self.root / f".{domain}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                path.parent.mkdir(exist_ok=True)
                remove_parts(path)
                yield path
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreUnavailable(f"the gallery {path} cannot be written: {error.strerror}") from error

    def _on_disk(self, domain: str, path: Path) -> Sequence[GalleryFace]:
        stamp = _stamp(path)
        if stamp is None:
            return ()
        slot = self._slots.get(domain)
        gallery = slot.gallery if slot is not None else None
        return gallery.faces if gallery is not None and gallery.stamp == stamp else self._read(path, stamp).faces

    def _current(self, domain: str, *, fresh: bool = False) -> _Gallery | None:
        path = self.path(domain)
        slot = self._slots.get(domain)
        if slot is None:
            if _stamp(path) is None:
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
        stamp = _stamp(path)
        if stamp is None:
            slot.gallery = None
            self._slots.pop(domain, None)
            return None
        if slot.gallery is not None and slot.gallery.stamp == stamp:
            return slot.gallery
        if slot.refused is None or slot.refused[0] != stamp:
            try:
                slot.gallery = self._read(path, stamp)
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

    def _read(self, path: Path, stamp: _Stamp) -> _Gallery:
        faces = _sorted(read_gallery(path).faces)
        if faces and len(faces[0].embedding) != self._dimension:
            raise GalleryError(
                f"{path} holds embeddings of {len(faces[0].embedding)} numbers, the embedder makes {self._dimension}: "
                "set EMBEDDER to the model that the gallery was made with, or run `python -m matchers sync` again"
            )
        return self._gallery(stamp, faces)

    def _gallery(self, stamp: _Stamp, faces: Sequence[GalleryFace]) -> _Gallery:
        matrix = np.empty((len(faces), self._dimension), np.float32)
        for row, face in zip(matrix, faces, strict=True):
            row[:] = face.embedding
        matrix.flags.writeable = False
        kept = tuple(replace(face, embedding=row) for row, face in zip(matrix, faces, strict=True))
        return _Gallery(stamp, kept, matrix)


def _sorted(faces: Iterable[GalleryFace]) -> list[GalleryFace]:
    return sorted(faces, key=lambda face: (face.source, face.box))


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise GalleryError(f"{path} cannot be read: {error.strerror}") from error
    return status.st_mtime_ns, status.st_size, status.st_ino


def _nearest(
    query: FloatArray, similarities: FloatArray, gallery: _Gallery, threshold: float | None, top_k: int
) -> list[Match]:
    count = min(top_k, len(similarities))
    limit = np.partition(similarities, -count)[-count] - _ROUNDING
    near = np.flatnonzero(similarities >= limit)
    # A matrix product may round equal rows differently; these sums do not, so faces at equal distance stay in the
    # order of the gallery, which is that of their sources.
    exact = 1 - (gallery.matrix[near].astype(np.float64) * query).sum(axis=1)
    order = np.argsort(exact, kind="stable")[:count]
    matches = []
    for index, distance in zip(near[order], np.clip(exact[order], 0, 2), strict=True):
        face = gallery.faces[index]
        matches.append(Match(face.person, float(distance), face.source))
    return [match for match in matches if threshold is None or match.distance <= threshold]
