"""Why do two stores disagree about a face?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from matchers.base import Match
from matchers.compare import OVERLAP_DEPTH, SAME_DISTANCE, counted

Reason = Literal[
    "missing_in_pkl",
    "missing_in_pgvector",
    "other_embedding",
    "threshold_edge",
    "tie",
    "approximate_index",
    "unexplained",
]
Key = tuple[str, str]

REASONS: dict[Reason, str] = {
    "missing_in_pkl": "missing in PKL: pgvector finds a face that the PKL gallery does not hold",
    "missing_in_pgvector": "missing in pgvector: PKL finds a face that pgvector does not hold",
    "other_embedding": "other embedding: both hold the face, but not with the same numbers",
    "threshold_edge": "threshold edge: the same nearest person, just under the threshold in one store and over it in "
    "the other",
    "tie": "tie: the faces that differ are equally near",
    "approximate_index": "approximate index missed it: pgvector holds the face, its index did not find it",
    "unexplained": "unexplained",
}

_SAME_EMBEDDING = 1e-4


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What the stores hold of the faces in question.

    Attributes:
        in_pkl, in_pgvector: (person, source) of the faces that this store holds.
        indexed: pgvector searches the domain through an approximate index.
    """

    in_pkl: frozenset[Key]
    in_pgvector: frozenset[Key]
    indexed: bool


def named(matches: Sequence[Match], threshold: float) -> str | None:
    """The person of the nearest match if it is at most ``threshold`` away."""
    return matches[0].person if matches and matches[0].distance <= threshold else None


def disagree(pkl: Sequence[Match], pgvector: Sequence[Match], threshold: float) -> bool:
    """Whether the stores name other people, have another nearest person, or differ in the first five results."""
    return (
        _first_person(pkl) != _first_person(pgvector)
        or named(pkl, threshold) != named(pgvector, threshold)
        or bool(suspects(pkl, pgvector))
        or _largest_delta(pkl, pgvector) > _SAME_EMBEDDING
    )


def suspects(pkl: Sequence[Match], pgvector: Sequence[Match]) -> set[Key]:
    """(person, source) of the faces that only one store has among its first five."""
    return _keys(pkl[:OVERLAP_DEPTH]) ^ _keys(pgvector[:OVERLAP_DEPTH])


def reason(
    pkl: Sequence[Match], pgvector: Sequence[Match], threshold: float, whereabouts: Whereabouts
) -> Reason | None:
    """Why the two result lists of one face (nearest first) differ, the gravest reason first; None when they agree.

    They also agree when all that differs is what an approximate index missed beyond the threshold, see
    :func:`matchers.compare.counted`; a face that one store does not hold is told at any distance.

    Args:
        threshold: cosine distance up to which two faces count as one person.
        whereabouts: where the :func:`suspects` are.
    """
    if not disagree(pkl, pgvector, threshold):
        return None
    in_question = suspects(pkl, pgvector)
    if in_question - whereabouts.in_pgvector:
        return "missing_in_pgvector"
    if in_question - whereabouts.in_pkl:
        return "missing_in_pkl"
    other_embedding = _largest_delta(pkl, pgvector) > _SAME_EMBEDDING or _passed_over(pkl, pgvector)
    if whereabouts.indexed:
        pkl, pgvector = counted(pkl, pgvector, threshold)
        if not disagree(pkl, pgvector, threshold):
            return None
    causes: tuple[tuple[Reason, bool], ...] = (
        ("other_embedding", other_embedding),
        ("threshold_edge", not suspects(pkl, pgvector) and _first_person(pkl) == _first_person(pgvector)),
        ("tie", _is_tie(pkl, pgvector)),
        ("approximate_index", whereabouts.indexed),
    )
    return next((cause for cause, applies in causes if applies), "unexplained")


def _passed_over(pkl: Sequence[Match], pgvector: Sequence[Match]) -> bool:
    """pgvector lists a face that PKL, which holds it and searches exactly, would list if it had the same numbers."""
    if len(pkl) < len(pgvector):
        return False
    held = _keys(pkl)
    return any(
        match.distance < pkl[-1].distance - SAME_DISTANCE and _key(match) not in held
        for match in pgvector[:OVERLAP_DEPTH]
    )


def _is_tie(pkl: Sequence[Match], pgvector: Sequence[Match]) -> bool:
    """The lists differ only by the order of equally near faces: rank by rank the distances are the same."""
    pairs = zip(pkl[:OVERLAP_DEPTH], pgvector[:OVERLAP_DEPTH], strict=False)
    return len(pkl[:OVERLAP_DEPTH]) == len(pgvector[:OVERLAP_DEPTH]) and all(
        abs(ours.distance - theirs.distance) <= SAME_DISTANCE for ours, theirs in pairs
    )


def _largest_delta(pkl: Sequence[Match], pgvector: Sequence[Match]) -> float:
    """Over the faces that stand once in both lists; a picture with several faces has several distances."""
    theirs = _single(pgvector)
    deltas = (abs(distance - theirs[key]) for key, distance in _single(pkl).items() if key in theirs)
    return max(deltas, default=0.0)


def _single(matches: Sequence[Match]) -> dict[Key, float]:
    counts = Counter(map(_key, matches))
    return {_key(match): match.distance for match in matches if counts[_key(match)] == 1}


def _first_person(matches: Sequence[Match]) -> str | None:
    return matches[0].person if matches else None


def _keys(matches: Iterable[Match]) -> set[Key]:
    return {_key(match) for match in matches}


def _key(match: Match) -> Key:
    return match.person, match.source
