"""Who is in a domain, over both stores; renaming and deleting people and faces."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from matchers.base import Entry, GalleryFace
from matchers.errors import PersonExists, StoreUnavailable, UnknownDomain, UnknownFace, UnknownPerson
from matchers.journal import DomainWriter, Written, writing
from matchers.service import Stores

_log = logging.getLogger("matchers.people")


@dataclass(frozen=True, slots=True)
class KnownFace:
    """An enrolled face and the names of the stores that hold it, ``pkl`` first."""

    entry: Entry
    stores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Census:
    """Everybody in a domain.

    Attributes:
        people: the faces of each person, by name; people and faces sorted.
        unavailable: stores that did not answer, so that what only they hold is missing.
    """

    domain: str
    people: dict[str, tuple[KnownFace, ...]]
    unavailable: tuple[str, ...]

    def faces(self, person: str) -> tuple[KnownFace, ...]:
        """The faces of a person.

        Raises:
            UnknownPerson: there is none of that name.
        """
        try:
            return self.people[person]
        except KeyError:
            raise UnknownPerson(f"the domain {self.domain!r} holds nobody of that name") from None

    def face(self, person: str, face: str) -> KnownFace:
        """The face of a person with the id ``face``.

        Raises:
            UnknownPerson, UnknownFace: there is none.
        """
        for known in self.faces(person):
            if known.entry.id == face:
                return known
        raise UnknownFace("the person has no face of that id")


@dataclass(frozen=True, slots=True)
class Removed:
    """What was deleted, in faces. ``pgvector_error``: why pgvector still has them; it lets go of them by itself."""

    faces: int
    pgvector_error: str


def census(stores: Stores, domain: str) -> Census:
    """Everybody in a domain; a store that is down is left out and named.

    Raises:
        UnknownDomain: no store holds the domain.
        StoreUnavailable: the PKL galleries do not hold it and pgvector does not answer.
        GalleryError: the PKL gallery cannot be read.
    """
    holders: dict[Entry, list[str]] = {}
    unavailable: list[str] = []
    known = stores.pkl.path(domain).exists()
    for entry in stores.pkl.entries(domain):
        holders.setdefault(entry, []).append("pkl")
    if stores.pgvector is not None:
        try:
            known = domain in stores.pgvector.domains() or known
            for entry in stores.pgvector.entries(domain):
                holders.setdefault(entry, []).append("pgvector")
        except StoreUnavailable:
            if not known:
                raise
            unavailable.append("pgvector")
    elif stores.pgvector_error:
        unavailable.append("pgvector")
    if not known:
        raise UnknownDomain(f"there is no domain {domain!r}")
    people: dict[str, list[KnownFace]] = {}
    for entry in sorted(holders, key=lambda entry: (entry.source, entry.box)):
        people.setdefault(entry.person, []).append(KnownFace(entry, tuple(holders[entry])))
    ordered = sorted(people, key=lambda name: (folded(name), name))
    return Census(domain, {name: tuple(people[name]) for name in ordered}, tuple(unavailable))


def folded(text: str) -> str:
    """``text`` as people look for it: without case and accents."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def delete_person(stores: Stores, domain: str, person: str) -> Removed:
    """Delete a person's faces in both stores, and every trace of them.

    Raises:
        UnknownPerson: there is none of that name.
        UnknownDomain, StoreUnavailable, GalleryError: as :func:`census` and ``write_both``.
    """
    with writing(stores, domain) as writer:
        faces = census(stores, domain).faces(person)
        written = writer.write((), {face.entry.source for face in faces}, erase=True)
        return Removed(len(faces), written.pgvector_error)


def delete_face(stores: Stores, domain: str, person: str, face: str) -> Removed:
    """Delete one face in both stores, and every trace of it; other faces of the same picture stay.

    Raises:
        UnknownPerson, UnknownFace: there is none.
        UnknownDomain, StoreUnavailable, GalleryError: as :func:`census` and ``write_both``.
    """
    with writing(stores, domain) as writer:
        source = census(stores, domain).face(person, face).entry.source
        others = [kept for kept in _held(stores, domain, person) if kept.source == source and kept.id != face]
        written = writer.write(others, [source], erase=True)
        return Removed(1, written.pgvector_error)


def rename_person(stores: Stores, domain: str, person: str, name: str, *, merge: bool = False) -> Written:
    """Give a person another name; ``merge``: make one person of the two when that name is taken.

    The pictures' sources follow the name, and so do the ids of the faces. Pictures in a folder that is synchronised
    must be moved as well, or the next ``sync`` brings the old name back.

    Raises:
        UnknownPerson: there is none of that name.
        PersonExists: the new name is taken and ``merge`` is not set.
        UnknownDomain, StoreUnavailable, GalleryError: as :func:`census` and ``write_both``.
    """
    with writing(stores, domain) as writer:
        everybody = census(stores, domain)
        known = everybody.faces(person)
        if name == person:
            return Written()
        if name in everybody.people and not merge:
            raise PersonExists(f"the domain {domain!r} holds somebody of that name already")
        taken = {face.entry.source for face in everybody.people.get(name, ())}
        return _move(writer, _held(stores, domain, person), {face.entry.source for face in known}, name, taken)


def _move(
    writer: DomainWriter, faces: Sequence[GalleryFace], old: Iterable[str], name: str, taken: set[str]
) -> Written:
    thumbnails = writer.stores.thumbnails
    sources: dict[str, str] = {}
    moved, pictures = [], {}
    for face in faces:
        if face.source not in sources:
            sources[face.source] = _free(f"{name}/{face.source.rpartition('/')[2]}", taken)
            taken.add(sources[face.source])
        copy = replace(face, person=name, source=sources[face.source])
        moved.append(copy)
        picture = thumbnails.read(writer.domain, face.id)
        if picture is not None:
            pictures[copy.id] = picture
    try:
        writer.stores.comparisons.rename(writer.domain, name, sources)
    except StoreUnavailable as error:
        _log.info("recorded comparisons of domain %s lose a person who is renamed: %s", writer.domain, error)
    return writer.write(moved, old, pictures, erase=True)


def _free(source: str, taken: set[str]) -> str:
    stem, dot, suffix = source.rpartition(".")
    candidate, number = source, 2
    while candidate in taken:
        candidate = f"{stem}-{number}.{suffix}" if dot else f"{source}-{number}"
        number += 1
    return candidate


def _held(stores: Stores, domain: str, person: str) -> list[GalleryFace]:
    """A person's faces, from the PKL gallery and, as far as only that has them, from pgvector."""
    faces = {face.id: face for face in stores.pkl.faces(domain, person)}
    if stores.pgvector is not None:
        try:
            for face in stores.pgvector.faces(domain, person):
                faces.setdefault(face.id, face)
        except StoreUnavailable:
            if not stores.pkl.path(domain).exists():
                raise
    return sorted(faces.values(), key=lambda face: (face.source, face.box))
