"""What is kept of one answer of dual mode: names and figures, no picture and no embedding."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matchers.base import Match, source_id
from matchers.compare import Comparison

REDACTED = Match("", 0.0, "")
"""Stands where a person was deleted since; the distance stays."""


@dataclass(frozen=True, slots=True)
class SeenFace:
    """What both stores said about one face.

    Attributes:
        pkl, pgvector: nearest first; a match without a person is one of somebody who was deleted since.
        comparison: how far they agree; None unless both answered.
        reason: why they disagree, see ``matchers.reasons``; None when they agree.
    """

    pkl: tuple[Match, ...]
    pgvector: tuple[Match, ...]
    comparison: Comparison | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One picture, searched in both stores.

    Attributes:
        request: 63 random bits.
        at: when the search began, seconds since 1970.
        model: embedding space, see ``ModelCard.gallery_space``.
        threshold: cosine distance up to which two faces counted as one person.
        pkl_ms, pgvector_ms: milliseconds of each search; None when the store gave no answer.
        error: why one gave none.
        faces: at least one.
    """

    request: int
    at: float
    domain: str
    model: str
    threshold: float
    pkl_ms: float | None
    pgvector_ms: float | None
    error: str
    faces: tuple[SeenFace, ...]


@dataclass(frozen=True, slots=True)
class Redaction:
    """Who and what must not be told any more of searches that began before ``at``.

    Digests (:func:`matchers.base.source_id`), so that it is no trace itself.

    Attributes:
        sources: of pictures; None: nothing of the domain is kept.
        people: of people.
    """

    at: float
    domain: str
    sources: frozenset[str] | None
    people: frozenset[str] = frozenset()

    def hits(self, record: Record) -> bool:
        """Whether it concerns ``record``."""
        return record.domain == self.domain and record.at < self.at


def redacted(record: Record, redactions: Collection[Redaction]) -> Record | None:
    """``record`` without what must not be told any more; None when nothing of it is kept."""
    for redaction in redactions:
        if not redaction.hits(record):
            continue
        if redaction.sources is None:
            return None
        faces = tuple(
            replace(face, pkl=_without(face.pkl, redaction), pgvector=_without(face.pgvector, redaction))
            for face in record.faces
        )
        record = replace(record, faces=faces)
    return record


def encode(record: Record) -> bytes:
    """One line of JSON, with its line end."""
    value = [
        record.request,
        record.at,
        record.domain,
        record.model,
        record.threshold,
        record.pkl_ms,
        record.pgvector_ms,
        record.error,
        [_encoded(face) for face in record.faces],
    ]
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Record:
    """Raises ValueError: the line was cut short, or not written by :func:`encode`."""
    try:
        request, at, domain, model, threshold, pkl_ms, pgvector_ms, error, faces = json.loads(line)
        return Record(
            int(request),
            float(at),
            str(domain),
            str(model),
            float(threshold),
            None if pkl_ms is None else float(pkl_ms),
            None if pgvector_ms is None else float(pgvector_ms),
            str(error),
            tuple(_decoded(face) for face in faces),
        )
    except (TypeError, KeyError) as cause:
        raise ValueError("this is no recorded comparison") from cause


def encode_redaction(redaction: Redaction) -> bytes:
    """One line of JSON, with its line end."""
    sources = None if redaction.sources is None else sorted(redaction.sources)
    return json.dumps([redaction.at, redaction.domain, sources, sorted(redaction.people)]).encode() + b"\n"


def decode_redaction(line: bytes) -> Redaction:
    """Raises ValueError: the line was cut short, or not written by :func:`encode_redaction`."""
    try:
        at, domain, sources, people = json.loads(line)
        kept = None if sources is None else frozenset(map(str, sources))
        return Redaction(float(at), str(domain), kept, frozenset(map(str, people)))
    except TypeError as cause:
        raise ValueError("this is no redaction") from cause


def _without(matches: Sequence[Match], redaction: Redaction) -> tuple[Match, ...]:
    assert redaction.sources is not None
    return tuple(
        replace(REDACTED, distance=match.distance)
        if source_id(match.source) in redaction.sources or source_id(match.person) in redaction.people
        else match
        for match in matches
    )


def _encoded(face: SeenFace) -> list[Any]:
    comparison = face.comparison
    return [
        [[match.person, match.distance, match.source] for match in face.pkl],
        [[match.person, match.distance, match.source] for match in face.pgvector],
        None if comparison is None else [comparison.top1_match, comparison.top5_overlap, comparison.max_distance_delta],
        face.reason,
    ]


def _decoded(value: Any) -> SeenFace:
    pkl, pgvector, comparison, reason = value
    return SeenFace(
        tuple(Match(str(person), float(distance), str(source)) for person, distance, source in pkl),
        tuple(Match(str(person), float(distance), str(source)) for person, distance, source in pgvector),
        None if comparison is None else Comparison(bool(comparison[0]), float(comparison[1]), float(comparison[2])),
        None if reason is None else str(reason),
    )
