"""A folder of pictures, one subfolder per person, brought into every store."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from matchers.base import GalleryFace, GalleryStore
from matchers.enrol import was_enrolled
from matchers.errors import GalleryError, StoreUnavailable
from matchers.folder import Folder, FolderError, Picture, Problem, read_folder
from matchers.journal import writing
from matchers.names import domain_name
from matchers.service import Stores
from matchers.thumbnails import Thumbnails, small_picture
from runtime.engine import FaceEngine
from runtime.errors import ImageError

BATCH = 500
THREADS = 2

Progress = Callable[[int, int], None]

_Known = dict[tuple[str, str], tuple[GalleryFace, ...]]


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What was done to one store, in pictures.

    Attributes:
        new, changed, removed: pictures written and taken out; a moved picture counts as removed and as new.
        unchanged: pictures that the store already had.
        error: why the store could not be brought up to date, "" when it was.
    """

    new: int
    changed: int
    removed: int
    unchanged: int
    error: str


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did.

    Attributes:
        domain: the domain that was filled.
        kept: pictures that were enrolled through the API, not from a folder; they are left alone.
        pictures: picture files found and readable.
        embedded: pictures that went through the models.
        reused: pictures whose embedding was copied, from the other store or from before the picture was moved.
        problems: pictures left out, sorted by source.
        stores: by store name, ``pkl`` first.
    """

    domain: str
    pictures: int
    embedded: int
    reused: int
    problems: tuple[Problem, ...]
    stores: Mapping[str, StoreReport]
    kept: int = 0

    @property
    def complete(self) -> bool:
        """Whether every store is up to date; pictures left out do not count against it."""
        return not any(report.error for report in self.stores.values())


def sync_folder(
    engine: FaceEngine,
    stores: Stores,
    domain: str,
    images: Path,
    on_progress: Progress | None = None,
    *,
    allow_empty: bool = False,
    keep_thumbnails: bool = True,
) -> SyncReport:
    """Bring ``images/<person>/<picture>`` into every store, by content.

    Only pictures whose bytes are not enrolled yet are read by the models, each once; an embedding that a store
    already has (a moved picture, a store that lags behind) is copied. A picture with no face or with several is left
    out and reported; when it used to hold one, the old face goes. Both stores are written together (see
    ``matchers.journal``), whole people at a time: while pgvector is down the PKL gallery is filled alone, and without
    the PKL gallery nothing is written. Faces that were enrolled through the API stay.

    Args:
        on_progress: called with the pictures done and the pictures to do, from the calling thread.
        allow_empty: lets a folder without pictures empty the domain.
        keep_thumbnails: keep a small picture of each face that goes through the models.

    Raises:
        InvalidName: the domain's name is not admitted.
        FolderError: the folder is missing, or holds no picture and ``allow_empty`` is not set.
    """
    domain = domain_name(domain)
    folder = read_folder(images)
    if not folder.pictures and not allow_empty:
        left_out = "".join(f" {problem.source}: {problem.reason}" for problem in folder.problems[:1])
        raise FolderError(
            f"{images} holds no picture to enrol.{left_out} Put pictures into one folder per person, such as "
            f"{images / 'amy' / '1.jpg'}. To empty the domain: `python -m matchers sync --allow-empty`."
        )
    targets = [_Target("pkl", stores.pkl, domain)]
    if stores.pgvector is not None or stores.pgvector_error:
        targets.append(_Target("pgvector", stores.pgvector, domain, stores.pgvector_error))
    for target in targets:
        target.plan(folder)

    wanted = set[str]().union(*(target.wanted for target in targets))
    missing = [picture for source, picture in folder.pictures.items() if source in wanted]
    reader = _FaceReader(engine, _known_faces(targets, missing), stores.thumbnails if keep_thumbnails else None, domain)
    writer = _Writer(stores, domain, targets)
    problems = list(folder.problems)
    counts: Counter[str] = Counter()
    notify = on_progress or _silent
    notify(0, len(missing))
    try:
        with ThreadPoolExecutor(THREADS, "sync") as pool:
            for done, result in enumerate(pool.map(reader.read, missing), start=1):
                counts[result.origin] += 1
                if result.reason:
                    problems.append(Problem(result.source, result.reason))
                writer.take(result)
                notify(done, len(missing))
    except BaseException:
        writer.flush()
        raise
    writer.finish()
    return SyncReport(
        domain=domain,
        pictures=len(folder.pictures),
        embedded=counts["embedded"],
        reused=counts["reused"],
        problems=tuple(sorted(problems, key=lambda problem: problem.source)),
        stores={target.name: target.report() for target in targets},
        kept=len({source for target in targets for source in target.inventory if was_enrolled(source)}),
    )


def _silent(_done: int, _total: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Reading:
    """One picture's faces (exactly one when it was embedded), or the reason why it has none to enrol.

    Attributes:
        origin: ``embedded`` (it went through the models), ``reused`` (copied from a store), ``refused`` (the file is
            no usable picture) or ``unread`` (the file could not be read, its old faces stay).
        thumbnails: JPEG files by face id.
    """

    source: str
    origin: str
    faces: tuple[GalleryFace, ...] = ()
    reason: str = ""
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)


class _FaceReader:
    """Gets the faces of a picture, from what the stores know or from the models. Thread-safe."""

    def __init__(self, engine: FaceEngine, known: _Known, thumbnails: Thumbnails | None, domain: str) -> None:
        self.engine = engine
        self.known = known
        self.thumbnails = thumbnails
        self.domain = domain

    def read(self, picture: Picture) -> _Reading:
        faces = self.known.get((picture.digest, picture.source)) or self.known.get((picture.digest, ""))
        if faces:
            copies = tuple(replace(face, person=picture.person, source=picture.source) for face in faces)
            return _Reading(picture.source, "reused", copies, thumbnails=self._copied(faces, copies))
        try:
            size = picture.path.stat().st_size
            if size > self.engine.limits.max_bytes:
                reason = f"The file has {size:,} bytes; at most {self.engine.limits.max_bytes:,} are taken."
                return _Reading(picture.source, "refused", reason=reason)
            data = picture.path.read_bytes()
        except OSError as error:
            return _Reading(picture.source, "unread", reason=f"The file cannot be read: {error.strerror}.")
        return self._embed(picture, data)

    def _embed(self, picture: Picture, data: bytes) -> _Reading:
        try:
            analysis, view = self.engine.analyze_and_keep(data)
        except ImageError as error:
            return _Reading(picture.source, "refused", reason=str(error))
        count = len(analysis.detections)
        if count != 1:
            reason = f"{count} faces were found; enrol a picture with one." if count else "No face was found."
            return _Reading(picture.source, "embedded", reason=reason)
        x, y, width, height = (round(float(value)) for value in analysis.detections.boxes[0])
        digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        face = GalleryFace(picture.person, picture.source, digest, analysis.embeddings[0], (x, y, width, height))
        thumbnails = {}
        if self.thumbnails is not None:
            thumbnails[face.id] = small_picture(view.pixels, view.inside(analysis.detections).boxes[0])
        return _Reading(picture.source, "embedded", (face,), thumbnails=thumbnails)

    def _copied(self, faces: Iterable[GalleryFace], copies: Iterable[GalleryFace]) -> dict[str, bytes]:
        """The thumbnails of ``faces``, as far as there are any, for their ``copies``."""
        found = {}
        for face, copy in zip(faces, copies, strict=True):
            data = self.thumbnails.read(self.domain, face.id) if self.thumbnails is not None else None
            if data is not None:
                found[copy.id] = data
        return found


class _Target:
    """A store on its way to what the folder holds."""

    def __init__(self, name: str, store: GalleryStore | None, domain: str, error: str = "") -> None:
        self.name = name
        self.store = store
        self.domain = domain
        self.error = error
        self.inventory: Mapping[str, str] = {}
        self.wanted: set[str] = set()
        self.stale: set[str] = set()
        self._done: Counter[str] = Counter()

    def plan(self, folder: Folder) -> None:
        """Read the inventory and settle which pictures to write and which to take out."""

        def read(store: GalleryStore) -> None:
            self.inventory = store.inventory(self.domain)
            self.wanted = {s for s, picture in folder.pictures.items() if self.inventory.get(s) != picture.digest}
            self.stale = {s for s in self.inventory if not folder.may_hold(s) and not was_enrolled(s)}
            self._done["unchanged"] = len(folder.pictures) - len(self.wanted)

        self.attempt(read)

    def faces(self) -> list[GalleryFace]:
        """Every face that the store holds; none when it fails."""
        found: list[GalleryFace] = []
        self.attempt(lambda store: found.extend(store.faces(self.domain)))
        return found

    def attempt(self, step: Callable[[GalleryStore], None]) -> None:
        """Run ``step`` unless the store has failed before; keep a failure for the report."""
        if self.store is None or self.error:
            return
        try:
            step(self.store)
        except (StoreUnavailable, GalleryError) as error:
            self.error = str(error)

    def count(self, written: Iterable[str], removed: Iterable[str]) -> None:
        """Both stores were written; count what this one lacked."""
        for source in self.wanted.intersection(written):
            self._done["changed" if source in self.inventory else "new"] += 1
        self._done["removed"] += len(self.stale.intersection(removed))

    def report(self) -> StoreReport:
        done = self._done
        return StoreReport(done["new"], done["changed"], done["removed"], done["unchanged"], self.error)


class _Writer:
    """Collects what was read and writes it to both stores, a batch at a time, whole people as far as one fits."""

    def __init__(self, stores: Stores, domain: str, targets: Sequence[_Target]) -> None:
        self.stores = stores
        self.domain = domain
        self.targets = targets
        self._faces: list[GalleryFace] = []
        self._thumbnails: dict[str, bytes] = {}

    def take(self, reading: _Reading) -> None:
        """Keep a picture's faces for the next batch."""
        if not reading.faces and reading.origin != "unread":
            for target in self.targets:
                if reading.source in target.inventory:
                    target.stale.add(reading.source)
        elif reading.faces:
            if len(self._faces) >= BATCH and reading.faces[0].person != self._faces[-1].person:
                self.flush()
            self._faces.extend(reading.faces)
            self._thumbnails.update(reading.thumbnails)
            if len(self._faces) >= 2 * BATCH:
                self.flush()

    def flush(self) -> None:
        """Write what was taken so far."""
        if self._faces:
            self._write(frozenset())

    def finish(self) -> None:
        """Write what is left and take out what is gone."""
        stale = frozenset[str]().union(*(target.stale for target in self.targets))
        if self._faces or stale:
            self._write(stale)

    def _write(self, stale: frozenset[str]) -> None:
        pkl, *others = self.targets
        if not pkl.error:
            sources = {face.source for face in self._faces}
            try:
                with writing(self.stores, self.domain) as writer:
                    written = writer.write(self._faces, stale, self._thumbnails, erase=bool(stale))
            except (StoreUnavailable, GalleryError) as error:
                pkl.error = str(error)
            else:
                pkl.count(sources, stale)
                for target in others:
                    target.error = target.error or written.pgvector_error
                    if not written.pgvector_error:
                        target.count(sources, stale)
        if pkl.error:
            for target in others:
                target.error = target.error or "it was left as it is, since the PKL gallery could not be written"
        self._faces, self._thumbnails = [], {}


def _known_faces(targets: Iterable[_Target], missing: Iterable[Picture]) -> _Known:
    """Faces that a store holds for the bytes of a missing picture, by (digest, source).

    The key (digest, "") serves a moved picture. It is left out when a store holds these bytes under several sources:
    then they are a group picture, enrolled face by face.
    """
    digests = {picture.digest for picture in missing}
    known: _Known = {}
    for target in targets:
        sources = {source: digest for source, digest in target.inventory.items() if digest in digests}
        holders = Counter(sources.values())
        grouped: dict[str, list[GalleryFace]] = {}
        for face in target.faces() if sources else ():
            if face.source in sources:
                grouped.setdefault(face.source, []).append(face)
        for source, faces in grouped.items():
            digest = sources[source]
            known.setdefault((digest, source), tuple(faces))
            if holders[digest] == 1:
                known.setdefault((digest, ""), tuple(faces))
    return known
