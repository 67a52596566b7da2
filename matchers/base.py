"""What every store and matcher shares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Match:
    """One face of a gallery, as near as ``distance`` to the face asked for.

    Attributes:
        person: who it is.
        distance: cosine distance, 0 = same, 2 = opposite.
        source: picture that the face was enrolled from, relative to the gallery root, ``/`` between parts.
    """

    person: str
    distance: float
    source: str


Results = list[list[Match]]
"""For each face that was asked for its matches, nearest first."""


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """Faces that are looked for.

    Attributes:
        embeddings: (n, d) float32, unit rows.
        domain: where.
        top_k: how many matches of each are wanted.
    """

    embeddings: FloatArray
    domain: str
    top_k: int


Box = tuple[int, int, int, int]
"""x, y, width, height in pixels of the picture."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One enrolled face without its embedding; the attributes are those of :class:`GalleryFace`."""

    person: str
    source: str
    digest: str
    box: Box

    @property
    def id(self) -> str:
        """What the API calls the face, see :func:`face_id`."""
        return face_id(self.source, self.box)


@dataclass(frozen=True, slots=True, eq=False)
class GalleryFace:
    """One enrolled face.

    Attributes:
        person: who it is (the folder under the gallery root).
        source: picture, relative to the gallery root, POSIX separators; unique together with ``box``.
        digest: sha1 of the picture's bytes, lower-case hex ("" when unknown).
        embedding: (d,) float32 of length 1.
        box: x, y, width, height in pixels of the picture.
    """

    person: str
    source: str
    digest: str
    embedding: FloatArray
    box: Box

    @property
    def id(self) -> str:
        """What the API calls the face, see :func:`face_id`."""
        return face_id(self.source, self.box)


def source_id(source: str) -> str:
    """16 hexadecimal digits of a picture's source; the ids of its faces begin with them."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def face_id(source: str, box: Box) -> str:
    """24 hexadecimal digits that name a face of a domain, the same in every store."""
    return source_id(source) + hashlib.sha256(repr(tuple(map(int, box))).encode()).hexdigest()[:8]


class Matcher(Protocol):
    """Searches the faces of a domain."""

    def search(self, embeddings: FloatArray, domain: str, threshold: float | None, top_k: int) -> list[list[Match]]:
        """The nearest ``top_k`` faces for each row of ``embeddings`` ((n, d) float32, unit rows), nearest first.

        ``threshold`` drops matches farther than this cosine distance; None keeps all.

        Raises:
            UnknownDomain: there is no such domain.
            StoreUnavailable: the store cannot answer at present.
        """
        ...


class GalleryStore(Matcher, Protocol):
    """A matcher that can also be written."""

    def domains(self) -> list[str]:
        """Names of the domains held, sorted."""
        ...

    def inventory(self, domain: str) -> Mapping[str, str]:
        """``{source: digest}`` of every picture enrolled; empty when there is no such domain."""
        ...

    def count(self, domain: str) -> int:
        """How many faces are enrolled; 0 when there is no such domain."""
        ...

    def entries(self, domain: str) -> list[Entry]:
        """Every enrolled face without its embedding, sorted by source."""
        ...

    def faces(self, domain: str, person: str | None = None) -> list[GalleryFace]:
        """Every enrolled face, or those of one person, sorted by source."""
        ...

    def apply(self, domain: str, upsert: Sequence[GalleryFace], remove: Iterable[str]) -> None:
        """In one atomic step: drop every face of the sources in ``remove`` and of the sources in ``upsert``, then
        add ``upsert``. Creates the domain when it is new."""
        ...

    def drop(self, domain: str) -> None:
        """Delete a domain with all its faces; nothing happens when there is none."""
        ...
