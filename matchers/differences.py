"""Where the two stores differ, and how one is made like the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from matchers.base import GalleryFace
from matchers.errors import GalleryError, StoreUnavailable, UnknownDomain
from matchers.journal import writing
from matchers.pgvector import PgvectorStore
from matchers.records import read_gallery
from matchers.service import Stores

Direction = Literal["pkl_to_pgvector", "pgvector_to_pkl"]
DIRECTIONS: Final[tuple[Direction, ...]] = get_args(Direction)

Kind = Literal["only_in_pkl", "only_in_pgvector", "other_content", "other_person", "other_faces", "other_embedding"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_BATCH = 500
# More than a gallery file rounds off a unit vector; two pictures of one face differ by 0.1 and more.
_DISTANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Difference:
    """A picture that the stores do not hold alike.

    Attributes:
        person: whom it shows; what the PKL gallery says when the stores disagree about that.
        source: the picture.
        kind: ``only_in_pkl``, ``only_in_pgvector``, or what differs: ``other_content`` (its digest), ``other_person``,
            ``other_faces`` (their boxes), ``other_embedding``.
    """

    person: str
    source: str
    kind: Kind

    @property
    def pkl(self) -> bool:
        """Whether the PKL gallery holds the picture."""
        return self.kind != "only_in_pgvector"

    @property
    def pgvector(self) -> bool:
        """Whether pgvector holds the picture."""
        return self.kind != "only_in_pkl"


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done, or with ``dry_run`` would be done: pictures copied from one store to the other, and removed."""

    domain: str
    direction: Direction
    dry_run: bool
    copied: tuple[str, ...]
    removed: tuple[str, ...]


def differences(stores: Stores, domain: str) -> tuple[Difference, ...]:
    """Every picture that the stores do not hold alike, sorted by source; their embeddings are compared as well.

    Raises:
        NoPgvector: pgvector is switched off.
        StoreUnavailable: pgvector does not answer.
        GalleryError: the PKL gallery cannot be read.
    """
    pgvector = stores.needed_pgvector()
    return compare_faces(stores.pkl.faces(domain), pgvector.faces(domain))


def compare_faces(ours: Iterable[GalleryFace], theirs: Iterable[GalleryFace]) -> tuple[Difference, ...]:
    """Where the faces of a PKL gallery (``ours``) and of pgvector (``theirs``) differ, sorted by source."""
    mine, others = by_source(ours), by_source(theirs)
    found = []
    for source in sorted(mine.keys() | others.keys()):
        faces = mine[source] if source in mine else others[source]
        kind: Kind | None
        if source not in others:
            kind = "only_in_pkl"
        elif source not in mine:
            kind = "only_in_pgvector"
        else:
            kind = _kind(mine[source], others[source])
        if kind is not None:
            found.append(Difference(faces[0].person, source, kind))
    return tuple(found)


def by_person(found: Iterable[Difference]) -> dict[str, dict[Kind, int]]:
    """How many pictures of each person differ, by kind."""
    counts: dict[str, Counter[Kind]] = {}
    for difference in found:
        counts.setdefault(difference.person, Counter())[difference.kind] += 1
    return {person: dict(counts[person]) for person in sorted(counts)}


def repair(stores: Stores, domain: str, direction: Direction, *, dry_run: bool = False) -> Repair:
    """Make one store like the other; ``dry_run``: only say what that would do.

    A PKL gallery that cannot be read is written anew from pgvector. The PKL gallery changes in one step, pgvector in
    batches: an interrupted repair goes on where it was when it is asked for again.

    Raises:
        UnknownDomain: the store that is copied from does not hold the domain.
        NoPgvector, StoreUnavailable: pgvector does not answer, or the PKL gallery cannot be written.
        GalleryError: the PKL gallery cannot be read, or a face does not fit it.
    """
    pgvector = stores.needed_pgvector()
    to_pkl = direction == "pgvector_to_pkl"
    held = domain in pgvector.domains() if to_pkl else stores.pkl.path(domain).exists()
    if not held:
        raise UnknownDomain(f"{'pgvector' if to_pkl else 'the PKL galleries'} do not hold a domain {domain!r} to copy")
    damaged = to_pkl and _is_damaged(stores, domain)
    if damaged and not dry_run:
        stores.pkl.drop(domain)
    with writing(stores, domain) as writer:
        if writer.pgvector_error:
            raise StoreUnavailable(writer.pgvector_error)
        ours = [] if damaged and dry_run else stores.pkl.faces(domain)
        theirs = pgvector.faces(domain)
        sources = [difference.source for difference in compare_faces(ours, theirs)]
        origin = by_source(theirs if to_pkl else ours)
        if not dry_run:
            if to_pkl:
                writer.write_pkl([face for source in sources for face in origin.get(source, ())], sources)
            else:
                _fill_pgvector(pgvector, domain, origin, sources)
                writer.forget(sources)
    copied = tuple(source for source in sources if source in origin)
    removed = tuple(source for source in sources if source not in origin)
    return Repair(domain, direction, dry_run, copied, removed)


def _fill_pgvector(
    pgvector: PgvectorStore, domain: str, origin: Mapping[str, Sequence[GalleryFace]], sources: Sequence[str]
) -> None:
    for start in range(0, max(len(sources), 1), _BATCH):
        batch = sources[start : start + _BATCH]
        pgvector.apply(domain, [face for source in batch for face in origin.get(source, ())], batch)
    if any(source not in origin for source in sources):
        pgvector.purge(domain)


def _is_damaged(stores: Stores, domain: str) -> bool:
    path = stores.pkl.path(domain)
    if not path.exists():
        return False
    try:
        read_gallery(path)
    except GalleryError:
        return True
    return False


def by_source(faces: Iterable[GalleryFace]) -> dict[str, list[GalleryFace]]:
    """Faces by their picture."""
    found: dict[str, list[GalleryFace]] = {}
    for face in faces:
        found.setdefault(face.source, []).append(face)
    return found


def differ(ours: Sequence[GalleryFace], theirs: Sequence[GalleryFace]) -> bool:
    """Whether the faces of one picture differ."""
    return _kind(ours, theirs) is not None


def _kind(ours: Sequence[GalleryFace], theirs: Sequence[GalleryFace]) -> Kind | None:
    if {face.digest for face in ours} != {face.digest for face in theirs}:
        return "other_content"
    mine, others = {face.box: face for face in ours}, {face.box: face for face in theirs}
    if mine.keys() != others.keys():
        return "other_faces"
    if any(mine[box].person != others[box].person for box in mine):
        return "other_person"
    if any(1 - float(mine[box].embedding @ others[box].embedding) > _DISTANCE for box in mine):
        return "other_embedding"
    return None
