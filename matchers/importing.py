"""A gallery file of DeepFace, brought into both stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO, Final

from matchers.base import GalleryFace, GalleryStore
from matchers.differences import by_source, differ
from matchers.errors import GalleryError, GalleryFileError, GalleryMismatch, StoreUnavailable
from matchers.folder import Problem
from matchers.formats import Format, format_of, read_records
from matchers.gallery_names import GalleryName, check_name, parse_name
from matchers.journal import writing
from matchers.names import domain_name
from matchers.pickles import Limits
from matchers.records import Gallery, Progress, Records, gallery_of
from matchers.service import Stores
from matchers.sources import folders
from matchers.sync import StoreReport
from models.card import ModelCard

MAX_BYTES: Final = Limits().max_bytes
"""Larger files are not read."""

_SHOWN: Final = 3
IMPORT_STAGES: Final = 4
Stage = Callable[[str], Progress]
"""Begins a step of the work, told by a text; gives what to call with how far that step is."""


@dataclass(frozen=True, slots=True)
class GalleryFile:
    """A gallery file that is open for reading.

    Attributes:
        name: the file's name, which tells how the embeddings were made.
        folder: name of the folder where it lies, "" when that is not known.
    """

    file: IO[bytes]
    name: str
    folder: str = ""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did, or with ``dry_run`` would do.

    Attributes:
        faces, people: in the file, as far as they can be used.
        copies: records of the file that repeat another one.
        skipped: records that were left out, by picture.
        warnings: what to know about the file, in sentences.
        stores: by store name, ``pkl`` first; counted in pictures.
    """

    domain: str
    file: str
    format: Format
    made_with: GalleryName
    faces: int
    people: int
    copies: int
    skipped: tuple[Problem, ...]
    warnings: tuple[str, ...]
    stores: Mapping[str, StoreReport]
    dry_run: bool = False

    @property
    def complete(self) -> bool:
        """Whether every store is up to date; records left out do not count against it."""
        return not any(report.error for report in self.stores.values())


def import_gallery(
    stores: Stores,
    embedder: ModelCard,
    detector: str,
    domain: str,
    gallery: GalleryFile,
    *,
    stage: Stage,
    accept: Collection[str] = (),
    roots: Collection[str] = (),
    dry_run: bool = False,
) -> ImportReport:
    """Bring every face of a gallery file into both stores.

    A picture that a store has already gets the faces of the file; what only the store has stays. Both stores change in
    one step each: a writer that is killed leaves them as they were, or the one that lags is brought up to date by the
    next writer. Importing a file again changes nothing.

    Args:
        stage: begins each step.
        embedder, detector: card of the embedder and name of the detector's card in use.
        accept: traits (``matchers.gallery_names.TRAITS``) that may differ from those in use.
        roots: the folders above the people, as the file has them; none: what its pictures tell
            (:func:`matchers.sources.gallery_roots`).
        dry_run: only read, check and count.

    Raises:
        InvalidName: the domain's name is not admitted.
        GalleryMismatch: its embeddings cannot be compared with those of the models in use.
        GalleryFileError: the file cannot be read, is damaged or hostile, or holds no face.
        StoreUnavailable: the PKL gallery cannot be written; nothing was changed.
        GalleryError: the PKL gallery cannot be read; nothing was changed.
    """
    domain = domain_name(domain)
    kind = format_of(gallery.name)
    name = parse_name(gallery.name)
    warnings = check_name(name, embedder, detector, accept)
    found = _read(gallery, kind, roots, stage("Reading the file"), embedder)
    warnings += [] if roots else _remarks(found)
    counts = _fill(stores, domain, found.faces, stage, dry_run=dry_run)
    return ImportReport(
        domain=domain,
        file=gallery.name,
        format=kind,
        made_with=name,
        faces=len(found.faces),
        people=len({face.person for face in found.faces}),
        copies=found.copies,
        skipped=_skipped(found),
        warnings=tuple(warnings),
        stores=counts,
        dry_run=dry_run,
    )


def _read(gallery: GalleryFile, kind: Format, roots: Collection[str], notify: Progress, embedder: ModelCard) -> Gallery:
    try:
        records = read_records(gallery.file, kind, notify)
        _check_dimension(records, embedder)
        found = gallery_of(records, gallery.folder, [folders(root) for root in roots])
    except GalleryFileError:
        raise
    except GalleryError as error:
        raise GalleryFileError(f"{gallery.name} is no gallery that can be read: {error}") from error
    if not found.faces:
        raise GalleryFileError(f"{gallery.name} holds no face that can be used{_reasons(found)}")
    notify(1, 1)
    return found


def _check_dimension(records: Records, embedder: ModelCard) -> None:
    dimension = records.embeddings.shape[1]
    if dimension and dimension != embedder.dimension:
        raise GalleryMismatch(
            f"The gallery's embeddings have {dimension} numbers, those of {embedder.name} have {embedder.dimension}: "
            "they are of another model. Set EMBEDDER to the model that made the gallery, or enrol the pictures anew "
            "with `python -m matchers sync`."
        )


def _remarks(found: Gallery) -> list[str]:
    """What to know of how people were told from the paths of their pictures."""
    people = {face.person for face in found.faces}
    told = []
    if len(people) == 1 and len(found.faces) > 2:
        told.append(
            f"All {len(found.faces)} faces come to one person, {next(iter(people))!r}, since their pictures share that "
            "folder. If they are of several people, name the folder above them as the file has it (root)."
        )
    roots = found.roots.folders if found.roots is not None else ()
    deeper = [face for face in found.faces if face.source.count("/") > 1]
    if len(roots) > 1:
        told.append(
            f"The pictures lie below {len(roots):,} root folders: {_listed(map('/'.join, roots))}. The people are the "
            "folders right below those. If that is wrong, name the folders above the people as the file has them "
            "(root, given once for each)."
        )
    elif roots and deeper:
        told.append(
            f"Pictures in deeper folders (faces: {len(deeper):,}), {deeper[0].source!r} for one, come to the person of "
            f"the upper folder, {deeper[0].person!r}. If the lower folders are the people, name the folders above them "
            "as the file has them (root, given once for each)."
        )
    return told


def _listed(names: Iterable[str]) -> str:
    """The first few in the order of letters."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN:,} more" if len(ordered) > _SHOWN else ""
    return ", ".join(map(repr, ordered[:_SHOWN])) + more


def _skipped(found: Gallery) -> tuple[Problem, ...]:
    empty = (Problem(identity, "DeepFace found no face in it.") for identity in found.empty)
    unusable = (Problem(one.identity, f"{one.reason[:1].upper()}{one.reason[1:]}.") for one in found.unusable)
    return tuple(sorted((*empty, *unusable), key=lambda problem: problem.source))


def _reasons(found: Gallery) -> str:
    skipped = _skipped(found)
    return f": {skipped[0].source}: {skipped[0].reason}" if skipped else ""


def _fill(
    stores: Stores, domain: str, faces: Sequence[GalleryFace], stage: Stage, *, dry_run: bool
) -> Mapping[str, StoreReport]:
    wanted = by_source(faces)
    if dry_run:
        return {name: target.report() for name, target in _targets(stores, domain, wanted, stage).items()}
    with writing(stores, domain) as writer:
        targets = _targets(stores, domain, wanted, stage, writer.pgvector_error)
        sources = set[str]().union(*(target.lacking for target in targets.values()))
        if sources:
            upsert = [face for face in faces if face.source in targets["pkl"].lacking]
            written = writer.fill(upsert, sources, stage("Writing the PKL gallery"), stage("Writing pgvector"))
            if "pgvector" in targets:
                targets["pgvector"].error = written.pgvector_error
    return {name: target.report() for name, target in targets.items()}


_Wanted = Mapping[str, Sequence[GalleryFace]]


def _targets(
    stores: Stores, domain: str, wanted: _Wanted, stage: Stage, pgvector_error: str = ""
) -> dict[str, _Target]:
    notify = stage("Comparing with the stores")
    notify(0, 2)
    targets = {"pkl": _Target(stores.pkl, domain, wanted)}
    notify(1, 2)
    if stores.pgvector is not None or stores.pgvector_error:
        targets["pgvector"] = _Target(stores.pgvector, domain, wanted, pgvector_error or stores.pgvector_error)
    notify(2, 2)
    return targets


class _Target:
    """A store, and the pictures that it does not hold as the file does."""

    def __init__(self, store: GalleryStore | None, domain: str, wanted: _Wanted, error: str = "") -> None:
        self.error = error
        self.lacking: Collection[str] = wanted.keys()
        self._counts = Counter(new=len(wanted))
        if store is None or error:
            return
        try:
            held = by_source(store.faces(domain))
        except StoreUnavailable as failure:
            self.error = str(failure)
            return
        self.lacking = {source for source, faces in wanted.items() if source not in held or differ(held[source], faces)}
        known = sum(source in held for source in self.lacking)
        self._counts = Counter(new=len(self.lacking) - known, changed=known, unchanged=len(wanted) - len(self.lacking))

    def report(self) -> StoreReport:
        """What was done; nothing when it failed."""
        done = Counter[str]() if self.error else self._counts
        return StoreReport(done["new"], done["changed"], 0, done["unchanged"], self.error)


def file_name(name: str) -> str:
    """What to call a file that a client names: the last part of a path, printable."""
    last = PurePath(name.replace("\\", "/")).name
    return "".join(letter for letter in last if letter.isprintable())[:255]
