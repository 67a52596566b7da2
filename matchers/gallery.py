"""Galleries in DeepFace's record schema: one PKL file per domain, searched exactly in memory."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matchers.base import FloatArray, GalleryFace, Match
from matchers.errors import GalleryError, InvalidName, UnknownDomain
from matchers.names import domain_name
from matchers.records import read_gallery, write_gallery
from models.card import ModelCard

_CHECK_SECONDS = 0.2
_Stamp = tuple[int, int, int]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Gallery:
    """A gallery in memory; faces sorted by source, ``matrix`` (n, d) float32 holds their embeddings."""

    stamp: _Stamp
    faces: tuple[GalleryFace, ...]
    matrix: FloatArray


class PklStore:
    """PKL galleries under ``root/<domain>/``, read anew when another process replaces a file. Thread-safe.

    A replaced file that cannot be read is logged, and the last good gallery keeps answering.
    """

    def __init__(self, root: Path, embedder: ModelCard, detector: str) -> None:
        """``detector``: its name becomes part of the file names, as DeepFace has it."""
        self.root = root
        self._dimension = embedder.dimension
        self._file = f"ds_model_{embedder.name}_detector_{detector}_aligned_normalization_base_expand_0.pkl"
        self._loaded: dict[str, _Gallery] = {}
        self._checked: dict[str, float] = {}
        self._refused: dict[str, _Stamp] = {}
        self._lock = threading.Lock()

    def path(self, domain: str) -> Path:
        """The gallery file of a domain, whether it is there or not."""
        return self.root / domain_name(domain) / self._file

    def domains(self) -> list[str]:
        """Names of the domains held, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(entry.parent.name for entry in self.root.glob(f"*/{self._file}") if _is_name(entry.parent.name))

    def inventory(self, domain: str) -> Mapping[str, str]:
        """``{source: digest}`` of every picture enrolled; empty when there is no such domain."""
        return {face.source: face.digest for face in self.faces(domain)}

    def count(self, domain: str) -> int:
        """How many faces are enrolled; 0 when there is no such domain."""
        return len(self.faces(domain))

    def faces(self, domain: str) -> list[GalleryFace]:
        """Every enrolled face, sorted by source."""
        gallery = self._current(domain, fresh=True)
        return list(gallery.faces) if gallery is not None else []

    def search(self, embeddings: FloatArray, domain: str, threshold: float | None, top_k: int) -> list[list[Match]]:
        """The nearest ``top_k`` faces for each row of ``embeddings`` ((n, d) float32, unit rows), nearest first.

        Raises:
            UnknownDomain: there is no gallery of that domain.
            GalleryError: the gallery cannot be read.
        """
        gallery = self._current(domain)
        if gallery is None:
            raise UnknownDomain(f"there is no PKL gallery of domain {domain!r}")
        if not len(gallery.faces):
            return [[] for _ in embeddings]
        distances = 1 - embeddings @ gallery.matrix.T
        return [_nearest(row, gallery.faces, threshold, top_k) for row in distances]

    def apply(self, domain: str, upsert: Sequence[GalleryFace], remove: Iterable[str]) -> None:
        """In one atomic step drop the faces of the sources in ``remove`` and ``upsert``, then add ``upsert``.

        Raises:
            GalleryError: a face does not fit this store, or the file on disk cannot be read; nothing was changed.
        """
        for face in upsert:
            if face.embedding.shape != (self._dimension,) or not np.isfinite(face.embedding).all():
                raise GalleryError(
                    f"the embedding of {face.source} does not fit: {self._dimension} finite numbers are needed"
                )
        gone = {*remove, *(face.source for face in upsert)}
        with self._writing(domain) as path:
            present = self._read(path).faces if path.exists() else ()
            faces = [*(face for face in present if face.source not in gone), *upsert]
            write_gallery(path, sorted(faces, key=lambda face: (face.source, face.box)))
        self._checked.pop(domain, None)

    def drop(self, domain: str) -> None:
        """Delete a domain with all its faces; nothing happens when there is none."""
        with self._writing(domain) as path:
            path.unlink(missing_ok=True)
        shutil.rmtree(path.parent, ignore_errors=True)
        with self._lock:
            self._loaded.pop(domain, None)
            self._checked.pop(domain, None)

    @contextmanager
    def _writing(self, domain: str) -> Iterator[Path]:
        """One process at a time changes a domain's gallery."""
        path = self.path(domain)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / f".{domain}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path
        finally:
            os.close(descriptor)

    def _current(self, domain: str, *, fresh: bool = False) -> _Gallery | None:
        now = time.monotonic()
        gallery = self._loaded.get(domain)
        if gallery is not None and not fresh and now - self._checked.get(domain, -1e9) < _CHECK_SECONDS:
            return gallery
        path = self.path(domain)
        with self._lock:
            gallery = self._loaded.get(domain)
            stamp = _stamp(path)
            self._checked[domain] = now
            if stamp is None:
                self._loaded.pop(domain, None)
                return None
            if gallery is not None and stamp in {gallery.stamp, self._refused.get(domain)}:
                return gallery
            try:
                gallery = self._loaded[domain] = self._read(path)
            except GalleryError as error:
                if gallery is None:
                    raise
                self._refused[domain] = stamp
                _logger.warning("the new gallery of domain %s is left alone, the last one serves on: %s", domain, error)
            return gallery

    def _read(self, path: Path) -> _Gallery:
        stamp = _stamp(path) or (0, 0, 0)
        faces = tuple(sorted(read_gallery(path).faces, key=lambda face: (face.source, face.box)))
        if faces and len(faces[0].embedding) != self._dimension:
            raise GalleryError(
                f"{path} holds embeddings of {len(faces[0].embedding)} numbers, the embedder makes {self._dimension}: "
                "set EMBEDDER to the model that the gallery was made with, or run `python -m matchers sync` again"
            )
        matrix = np.array([face.embedding for face in faces], np.float32).reshape(len(faces), self._dimension)
        return _Gallery(stamp, faces, matrix)


def _is_name(text: str) -> bool:
    try:
        domain_name(text)
    except InvalidName:
        return False
    return True


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _nearest(distances: FloatArray, faces: Sequence[GalleryFace], threshold: float | None, top_k: int) -> list[Match]:
    # Faces are sorted by source, so a stable sort settles ties by source.
    near = np.arange(len(distances))
    if top_k < len(distances):
        limit = np.partition(distances, top_k - 1)[top_k - 1]
        near = np.flatnonzero(distances <= limit)
    order = near[np.argsort(distances[near], kind="stable")][:top_k]
    matches = [Match(faces[i].person, float(np.clip(distances[i], 0, 2)), faces[i].source) for i in order]
    return [match for match in matches if threshold is None or match.distance <= threshold]
