"""A gallery by columns: names in one piece of memory, embeddings in one matrix; no object for each face."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from matchers.base import Box, Entry, FloatArray, GalleryFace
from matchers.scan import Codes, IndexArray, encode
from matchers.sources import person_of

BLOCK = 4096
"""Faces that are handled at once where many are."""


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Many texts in one piece of memory.

    Attributes:
        data: all texts in UTF-8, one after another.
        ends: (n + 1,) int64, where the first begins and each one ends.
    """

    data: memoryview
    ends: IndexArray

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> Texts:
        """Keep ``texts``, encoded by :func:`raw`."""
        held = list(texts)
        ends = np.zeros(len(held) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, held), np.int64, len(held)), out=ends[1:])
        return cls(memoryview(b"".join(held)), ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> str:
        return text(bytes(self.data[self.ends[index] : self.ends[index + 1]]))

    def raw(self) -> list[bytes]:
        """All of them in UTF-8; their order is that of the texts."""
        data = bytes(self.data)
        return [data[start:end] for start, end in pairwise(self.ends.tolist())]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Faces, sorted by source and box.

    Attributes:
        sources: as in :class:`GalleryFace`; the person follows from the source.
        digests: as in :class:`GalleryFace`.
        boxes: (n, 4) int32, x, y, width, height.
        rows: (n, d) float32, the embeddings.
        codes: the embeddings in 8 bits.
    """

    sources: Texts
    digests: Texts
    boxes: npt.NDArray[np.int32]
    rows: FloatArray
    codes: Codes

    @classmethod
    def of(cls, faces: Iterable[GalleryFace], dimension: int) -> Columns:
        """Columns of ``faces``, whose embeddings have ``dimension`` numbers."""
        held = sorted(faces, key=lambda face: (face.source, face.box))
        rows = np.empty((len(held), dimension), np.float32)
        for row, face in zip(rows, held, strict=True):
            row[:] = face.embedding
        rows.flags.writeable = False
        return cls(
            Texts.of(raw(face.source) for face in held),
            Texts.of(raw(face.digest) for face in held),
            np.array([face.box for face in held], np.int32).reshape(-1, 4),
            rows,
            encode(rows),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def face(self, index: int) -> GalleryFace:
        """One face; its embedding is a row of the matrix."""
        source = self.sources[index]
        return GalleryFace(person_of(source), source, self.digests[index], self.rows[index], self._box(index))

    def faces(self, person: str | None = None) -> list[GalleryFace]:
        """All faces, or those of one person."""
        return [self.face(index) for index, name in enumerate(self.people()) if person is None or name == person]

    def entries(self) -> list[Entry]:
        """All faces without their embeddings."""
        names = zip(self.people(), self.sources.raw(), self.digests.raw(), self.boxes.tolist(), strict=True)
        return [
            Entry(person, text(source), text(digest), (x, y, w, h)) for person, source, digest, (x, y, w, h) in names
        ]

    def people(self) -> Iterator[str]:
        """The person of each face."""
        folder, person = b"", ""
        for source in self.sources.raw():
            # Sources are sorted, so a person's pictures stand together.
            if not folder or not source.startswith(folder):
                name, slash, _ = source.partition(b"/")
                folder, person = name + slash if slash else b"", person_of(text(source))
            yield person

    def _box(self, index: int) -> Box:
        x, y, width, height = self.boxes[index].tolist()
        return x, y, width, height


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """A gallery after a change, not put together yet.

    Attributes:
        order: (n,) numbers of the faces, in order; those of ``before`` come first, those of ``added`` count on.
    """

    before: Columns
    added: Columns
    order: IndexArray

    @classmethod
    def of(cls, before: Columns, added: Columns, gone: Collection[str]) -> Change:
        """Drop the faces of the sources in ``gone``, which holds those of ``added``, then add ``added``."""
        absent = {raw(source) for source in gone}
        sources = before.sources.raw()
        kept = [index for index, source in enumerate(sources) if source not in absent]
        names = [sources[index] for index in kept]
        places = [bisect_left(names, source) for source in added.sources.raw()]
        order = np.insert(np.array(kept, np.int64), places, len(before) + np.arange(len(added)))
        return cls(before, added, order)

    @classmethod
    def none(cls, columns: Columns) -> Change:
        """``columns`` as they are."""
        return cls(columns, Columns.of((), columns.rows.shape[1]), np.arange(len(columns)))

    def __len__(self) -> int:
        return len(self.order)

    @property
    def dimension(self) -> int:
        """Numbers of an embedding."""
        return int(self.before.rows.shape[1])

    @property
    def longest(self) -> float:
        """As :attr:`Codes.longest`."""
        return max(self.before.codes.longest, self.added.codes.longest)

    def sources(self) -> Texts:
        """The column put together."""
        return self._texts(self.before.sources, self.added.sources)

    def digests(self) -> Texts:
        """The column put together."""
        return self._texts(self.before.digests, self.added.digests)

    def blocks(self) -> Iterator[slice]:
        """Parts of the whole, in order."""
        for start in range(0, len(self), BLOCK):
            yield slice(start, min(start + BLOCK, len(self)))

    def boxes(self, part: slice) -> npt.NDArray[np.int32]:
        """A part of the column."""
        return self._gather(self.before.boxes, self.added.boxes, part)

    def rows(self, part: slice) -> FloatArray:
        """A part of the matrix."""
        return self._gather(self.before.rows, self.added.rows, part)

    def codes(self, part: slice) -> Codes:
        """A part of the codes."""
        old, new = self.before.codes, self.added.codes
        return Codes(
            self._gather(old.values, new.values, part),
            self._gather(old.scales, new.scales, part),
            self._gather(old.errors, new.errors, part),
            self.longest,
        )

    def whole(self) -> Columns:
        """Everything put together in memory."""
        if not len(self.added) and len(self) == len(self.before):
            return self.before
        everything = slice(0, len(self))
        rows = self.rows(everything)
        rows.flags.writeable = False
        return Columns(self.sources(), self.digests(), self.boxes(everything), rows, self.codes(everything))

    def _gather(self, old: npt.NDArray[np.generic], new: npt.NDArray[np.generic], part: slice) -> npt.NDArray[Any]:
        chosen = self.order[part]
        border = len(self.before)
        fresh = chosen >= border
        gathered = old[np.where(fresh, 0, chosen)] if border else np.empty((len(chosen), *old.shape[1:]), old.dtype)
        gathered[fresh] = new[chosen[fresh] - border]
        return gathered

    def _texts(self, old: Texts, new: Texts) -> Texts:
        held = [*old.raw(), *new.raw()]
        return Texts.of(held[index] for index in self.order.tolist())


def raw(name: str) -> bytes:
    """A text as columns keep it; the order of such bytes is the order of the texts."""
    return name.encode("utf-8", "surrogatepass")


def text(name: bytes) -> str:
    """What :func:`raw` was given."""
    return name.decode("utf-8", "surrogatepass")
