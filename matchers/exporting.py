"""The faces of a domain as a gallery file that DeepFace reads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from matchers.base import GalleryFace
from matchers.errors import StoreUnavailable, UnknownDomain
from matchers.files import written_atomically
from matchers.npz import write_npz
from matchers.records import Progress, write_records
from matchers.service import Stores

StoreName = Literal["pgvector", "pkl"]
STORES: Final[tuple[StoreName, ...]] = get_args(StoreName)

SUFFIXES: Final = (".pkl", ".npz")
"""Of DeepFace up to 0.0.101, and after."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written.

    Attributes:
        file: where.
        in_place: faces whose picture lies unchanged in the folder of pictures: DeepFace takes them as they are.
        elsewhere: faces without a picture there: DeepFace keeps them with ``refresh_database=False`` only.
    """

    domain: str
    store: StoreName
    file: str
    faces: int
    people: int
    in_place: int
    elsewhere: int


def faces_to_export(stores: Stores, domain: str, store: StoreName) -> list[GalleryFace]:
    """Every face of the domain in the store that is named.

    Raises:
        UnknownDomain: the store does not hold the domain, or no face of it.
        StoreUnavailable: pgvector is switched off or does not answer.
        GalleryError: the PKL gallery cannot be read.
    """
    if store == "pkl":
        faces = stores.pkl.faces(domain)
    else:
        try:
            pgvector = stores.needed_pgvector()
        except StoreUnavailable as error:
            raise type(error)(f"{error}. `--store pkl` exports what the PKL gallery holds.") from error
        faces = pgvector.faces(domain)
    if not faces:
        raise UnknownDomain(
            f"{'pgvector holds' if store == 'pgvector' else 'the PKL galleries hold'} no face of {domain!r}"
        )
    return faces


def export_faces(
    domain: str, store: StoreName, faces: Sequence[GalleryFace], path: Path, *, images: str, notify: Progress
) -> ExportReport:
    """Write a gallery file, atomically.

    Args:
        path: ends in one of :data:`SUFFIXES`.
        images: the folder of the pictures as it is given to ``DeepFace.find`` (``db_path``); "": identities stay
            relative, and DeepFace is to search with ``refresh_database=False``.
        notify: called with the faces done and to do.

    Raises:
        OSError: the disk is full, or the folder cannot be written; an older file stays as it was.
    """
    found = {True: 0, False: 0}

    def records() -> Iterator[tuple[str, str, GalleryFace]]:
        for done, face in enumerate(faces):
            identity = os.path.join(images, face.source) if images else face.source  # noqa: PTH118
            digest = face.digest
            if images:
                held = _digest(identity, face.digest)
                found[held is not None] += 1
                digest = held or digest
            yield identity, digest, face
            if done % 1000 == 0:
                notify(done, len(faces))

    with written_atomically(path) as file:
        if path.suffix == ".npz":
            write_npz(file, records(), len(faces[0].embedding))
        else:
            write_records(file, records())
    notify(len(faces), len(faces))
    people = len({face.person for face in faces})
    return ExportReport(domain, store, str(path), len(faces), people, found[True], found[False])


def _digest(path: str, digest: str) -> str | None:
    """DeepFace's hash of a picture whose content is that of ``digest``; None when there is no picture.

    DeepFace hashes a file's size and times (``commons/image_utils.py``, ``find_image_hash``), this program its content.
    A picture that changed keeps the old hash, so that DeepFace reads it again.
    """
    picture = Path(path)
    try:
        status = picture.stat()
        properties = f"{status.st_size}-{status.st_ctime}-{status.st_mtime}"
        theirs = hashlib.sha1(properties.encode(), usedforsecurity=False).hexdigest()
        if theirs == digest or hashlib.sha1(picture.read_bytes(), usedforsecurity=False).hexdigest() == digest:
            return theirs
    except OSError:
        return None
    return digest
