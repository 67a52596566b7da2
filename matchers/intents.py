"""What a writer of both stores meant to do, on the disk before it does it."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from matchers.base import GalleryFace
from matchers.errors import GalleryError
from matchers.files import remove_all_parts, written_atomically

_SUFFIX = ".json"

Stage = Literal["both", "pgvector"]


@dataclass(frozen=True, slots=True, eq=False)
class Intent:
    """One change of a domain.

    Attributes:
        stage: ``both``: nothing is certain yet, ``faces`` holds what is needed to finish. ``pgvector``: the PKL gallery
            has it, pgvector is to get the same; ``faces`` is empty.
        sources: pictures whose faces are replaced by ``faces``; None: all of the domain, which is deleted.
        faces: what is added. Embeddings are personal data: they leave the disk as soon as the PKL gallery has them.
        erase: no trace of what is taken out may stay in the database's files.
    """

    stage: Stage
    sources: tuple[str, ...] | None
    faces: tuple[GalleryFace, ...] = ()
    erase: bool = False

    def for_pgvector(self) -> Intent:
        """What is left to do once the PKL gallery is written."""
        return Intent("pgvector", self.sources, (), self.erase)


class IntentFolder:
    """The intents of one gallery, oldest first. Its user holds the lock of the domain."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, intent: Intent) -> Path:
        """Put ``intent`` on the disk.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        last = max((int(path.stem) for path in self.paths()), default=0)
        path = self.folder / f"{last + 1:012}{_SUFFIX}"
        self.replace(path, intent)
        return path

    def replace(self, path: Path, intent: Intent) -> None:
        """Put ``intent`` in the place of the one at ``path``."""
        with written_atomically(path) as file:
            file.write(json.dumps(_encoded(intent), ensure_ascii=True).encode())

    def paths(self) -> list[Path]:
        """Files of the intents that are there, oldest first."""
        return sorted(path for path in self.folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal())

    def read(self) -> Iterator[tuple[Path, Intent]]:
        """The intents that are there, oldest first.

        Raises:
            GalleryError: a file was not written by this program.
        """
        for path in self.paths():
            try:
                yield path, _decoded(json.loads(path.read_bytes()))
            except (ValueError, KeyError, TypeError) as error:
                raise GalleryError(
                    f"the journal entry {path} cannot be read: remove it, then compare the stores with "
                    "`python -m matchers status`"
                ) from error

    def remove(self, paths: Collection[Path]) -> None:
        """Forget the intents of ``paths``, and what a writer that was killed while it wrote one left."""
        for path in paths:
            path.unlink(missing_ok=True)
        remove_all_parts(self.folder)


def _encoded(intent: Intent) -> dict[str, Any]:
    return {
        "stage": intent.stage,
        "sources": intent.sources,
        "erase": intent.erase,
        "faces": [
            {
                "person": face.person,
                "source": face.source,
                "digest": face.digest,
                "box": list(map(int, face.box)),
                "embedding": base64.b64encode(face.embedding.astype("<f4").tobytes()).decode(),
            }
            for face in intent.faces
        ],
    }


def _decoded(value: dict[str, Any]) -> Intent:
    if value["stage"] not in ("both", "pgvector"):
        raise ValueError("no such stage")
    sources: Sequence[str] | None = value["sources"]
    return Intent(
        stage=value["stage"],
        sources=None if sources is None else tuple(map(str, sources)),
        faces=tuple(_face(face) for face in value["faces"]),
        erase=bool(value["erase"]),
    )


def _face(value: dict[str, Any]) -> GalleryFace:
    x, y, width, height = map(int, value["box"])
    embedding = np.frombuffer(base64.b64decode(value["embedding"], validate=True), "<f4").astype(np.float32)
    return GalleryFace(
        str(value["person"]), str(value["source"]), str(value["digest"]), embedding, (x, y, width, height)
    )
