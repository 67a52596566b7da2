"""Pictures of a person, checked and enrolled in both stores.

Each picture is looked at by itself (:func:`examine`), then against the gallery (:func:`enrol`), where it is enrolled
whole or not at all. A refusal whose code is in :data:`SOFT` may be overridden.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from matchers.base import FloatArray, GalleryFace, GalleryStore, Match
from matchers.journal import Written, writing
from matchers.service import Stores
from matchers.thumbnails import small_picture
from runtime.engine import FaceEngine
from runtime.errors import ImageError
from runtime.quality import Quality, measure, portrait

SOFT: Final = frozenset({"face_too_small", "face_blurred", "face_turned", "duplicate", "lookalike"})
"""Codes of refusals that the client may override."""

_ENROLLED: Final = re.compile(r".*/enrolled-[0-9a-f]{16}(-[0-9]+)?\.jpg", re.DOTALL)

# Nearer than this part of the threshold are two copies of one picture. Measured on 40 portraits with the threshold 0.6
# (so 0.05): copies as JPEG of quality 95 and 60 lie within 0.022 and 0.048 of their originals, the two most similar
# different pictures of one person at 0.155.
_COPY = 1 / 12


@dataclass(frozen=True, slots=True)
class Remark:
    """Something to know about a picture: a code for programs, a sentence for people. ``person``: whom it is about, when
    that is somebody else."""

    code: str
    message: str
    person: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A picture with one usable face.

    Attributes:
        file: what the client calls it.
        digest: sha1 of its bytes, lower-case hex.
        box, embedding: as in :class:`GalleryFace`.
        thumbnail: the face as a JPEG file.
    """

    file: str
    digest: str
    box: tuple[int, int, int, int]
    embedding: FloatArray
    quality: Quality
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A picture that was left out."""

    file: str
    remark: Remark


@dataclass(frozen=True, slots=True, eq=False)
class Enrolled:
    """A picture that was enrolled."""

    file: str
    face: GalleryFace
    warnings: tuple[Remark, ...]


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What became of the pictures of one request, each list in their order. ``new_person``: there was none before."""

    enrolled: tuple[Enrolled, ...]
    refused: tuple[Refused, ...]
    new_person: bool
    written: Written


def examine(engine: FaceEngine, file: str, data: bytes, allow: Collection[str] = ()) -> Candidate | Refused:
    """Look at one picture: is there exactly one face, large, sharp and frontal enough?

    Args:
        file: what the client calls it.
        allow: codes of refusals to override.
    """
    try:
        found, view = engine.analyze_and_keep(data)
    except ImageError as error:
        return Refused(file, Remark(error.code, str(error)))
    count = len(found.detections)
    if count == 0:
        return Refused(file, Remark("no_face", "No face was found. Send a picture in which the face is well visible."))
    if count > 1:
        message = f"{count} faces were found. Send a picture that shows this person only, or cut the face out."
        return Refused(file, Remark("several_faces", message))
    box, landmarks = found.detections.boxes[0], found.detections.landmarks[0]
    there = view.inside(found.detections)
    quality = measure(portrait(view.pixels, there.boxes[0], there.landmarks[0]), box, landmarks)
    for code, message in quality.faults().items():
        if code not in allow:
            return Refused(file, Remark(code, message))
    x, y, width, height = (round(float(value)) for value in box)
    digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    thumbnail = small_picture(view.pixels, there.boxes[0])
    return Candidate(file, digest, (x, y, width, height), found.embeddings[0], quality, thumbnail)


def enrol(
    stores: Stores,
    domain: str,
    person: str,
    candidates: Sequence[Candidate],
    threshold: float,
    *,
    allow: Collection[str] = (),
    keep_thumbnails: bool = True,
) -> Enrolment:
    """Compare pictures with the gallery and with each other, and enrol those that pass, in one step.

    Args:
        threshold: cosine distance up to which two faces count as one person.
        allow: codes of refusals to override; each then comes as a warning.
        keep_thumbnails: keep a small picture of each face.

    Raises:
        UnknownDomain: there is no such domain.
        StoreUnavailable, GalleryError: the stores cannot be read or written; nothing was enrolled.
    """
    with writing(stores, domain) as writer:
        store = _readable(stores, domain)
        own = store.faces(domain, person)
        new_person = not own
        enrolled: list[Enrolled] = []
        refused: list[Refused] = []
        thumbnails: dict[str, bytes] = {}
        for candidate in candidates:
            stranger = _nearest_stranger(store, domain, person, candidate, len(own))
            remarks = _against_own(candidate, own, threshold) + _against_others(candidate, own, stranger, threshold)
            refusal = next((remark for remark in remarks if remark.code in SOFT and remark.code not in allow), None)
            if refusal is not None:
                refused.append(Refused(candidate.file, refusal))
                continue
            source = f"{person}/enrolled-{candidate.digest[:16]}.jpg"
            face = GalleryFace(person, source, candidate.digest, candidate.embedding, candidate.box)
            own = [kept for kept in own if kept.source != source] + [face]
            weak = {**candidate.quality.faults(), **candidate.quality.weaknesses()}
            warnings = (*(Remark(code, text) for code, text in weak.items()), *remarks)
            enrolled = [kept for kept in enrolled if kept.face.source != source]
            enrolled.append(Enrolled(candidate.file, face, warnings))
            if keep_thumbnails:
                thumbnails[face.id] = candidate.thumbnail
        written = writer.write([one.face for one in enrolled], (), thumbnails) if enrolled else Written()
    return Enrolment(tuple(enrolled), tuple(refused), new_person, written)


def was_enrolled(source: str) -> bool:
    """Whether a picture came through :func:`enrol`, not from a folder."""
    return _ENROLLED.fullmatch(source) is not None


def _readable(stores: Stores, domain: str) -> GalleryStore:
    """The store to compare with: the PKL gallery, else pgvector.

    Raises:
        UnknownDomain: neither holds the domain.
    """
    stores.require(domain)
    return stores.pkl if stores.pkl.path(domain).exists() else stores.needed_pgvector()


def _nearest_stranger(store: GalleryStore, domain: str, person: str, candidate: Candidate, own: int) -> Match | None:
    """The nearest face of somebody else: among one more than the person's own faces there is one."""
    nearest = store.search(candidate.embedding[None], domain, None, own + 1)[0]
    return next((match for match in nearest if match.person != person), None)


def _against_own(candidate: Candidate, own: Sequence[GalleryFace], threshold: float) -> list[Remark]:
    if not own:
        return []
    if any(face.digest == candidate.digest for face in own):
        return [Remark("duplicate", "This very picture is enrolled already. Send another one.")]
    distance = _nearest_distance(candidate, own)
    if distance < threshold * _COPY:
        message = f"A copy of this picture is enrolled already (distance {distance:.3f}). Send another one."
        return [Remark("duplicate", message)]
    if distance > threshold:
        message = f"The face does not look like the person's other pictures (distance {distance:.2f})."
        return [Remark("unlike", message)]
    return []


def _against_others(
    candidate: Candidate, own: Sequence[GalleryFace], stranger: Match | None, threshold: float
) -> list[Remark]:
    if stranger is None:
        return []
    mine = _nearest_distance(candidate, own) if own else 2.0
    if stranger.distance <= threshold and stranger.distance < mine:
        message = (
            f"The face looks like {stranger.person} (distance {stranger.distance:.2f}, the same person up to "
            f"{threshold:g}). Check the name; if these are two people, allow it."
        )
        return [Remark("lookalike", message, stranger.person)]
    if stranger.distance <= threshold:
        message = f"The face also looks like {stranger.person} (distance {stranger.distance:.2f})."
        return [Remark("also_like", message, stranger.person)]
    return []


def _nearest_distance(candidate: Candidate, faces: Iterable[GalleryFace]) -> float:
    return min(1 - float(face.embedding @ candidate.embedding) for face in faces)
