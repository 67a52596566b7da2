"""Do two stores say the same about a face?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matchers.base import Match

OVERLAP_DEPTH = 5
SAME_DISTANCE = 1e-5
"""Distances as near count as equal: float32 sums of some hundred products differ in the seventh digit, two pictures of
one face in the first two."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far two result lists agree, over the results that count (:func:`counted`).

    Attributes:
        top1_match: both name the same person first; two empty lists agree.
        top5_overlap: share of the first five results that both hold, 0 to 1; two empty lists give 1.
        max_distance_delta: largest difference between the two distances of one result, over the results that both
            lists hold; 0 when they hold none in common.
    """

    top1_match: bool
    top5_overlap: float
    max_distance_delta: float


def compare(pkl: Sequence[Match], pgvector: Sequence[Match], threshold: float | None = None) -> Comparison:
    """Compare two result lists for one face, both nearest first. A result is known by its person and source.

    Args:
        threshold: cosine distance up to which two faces count as one person, where pgvector was searched through an
            index that may miss faces; None where it was searched exactly, and every result counts.
    """
    delta = _largest_delta(pkl, pgvector)
    if threshold is not None:
        pkl, pgvector = counted(pkl, pgvector, threshold)
    first_pkl = pkl[0].person if pkl else None
    first_pgvector = pgvector[0].person if pgvector else None
    return Comparison(
        top1_match=first_pkl == first_pgvector,
        top5_overlap=_overlap(pkl[:OVERLAP_DEPTH], pgvector[:OVERLAP_DEPTH]),
        max_distance_delta=delta,
    )


def counted(
    pkl: Sequence[Match], pgvector: Sequence[Match], threshold: float
) -> tuple[Sequence[Match], Sequence[Match]]:
    """The results of both lists that count where pgvector was searched through an index that may miss faces.

    Such an index is made to find what lies within ``threshold``. What it misses beyond is in no answer's ``person``,
    and does not count; nor do the faces which therefore stand at the end of its list, farther than all of PKL's.
    Whatever else only one store has counts: PKL's results within the threshold, and results of pgvector that PKL, which
    is exact, would have if it held them at that distance. An index fills the list, so in lists of unequal length every
    result counts.
    """
    if len(pkl) != len(pgvector):
        return pkl, pgvector
    last = pkl[-1].distance - SAME_DISTANCE if pkl else 0.0
    common = Counter(map(_key, pkl)) & Counter(map(_key, pgvector))
    return (
        [match for match, shared in _marked(pkl, common) if shared or match.distance <= threshold],
        [match for match, shared in _marked(pgvector, common) if shared or match.distance < last],
    )


def merge(comparisons: Sequence[Comparison]) -> Comparison:
    """One comparison for a whole picture: all faces agree, mean overlap, largest delta. No face: full agreement."""
    if not comparisons:
        return Comparison(top1_match=True, top5_overlap=1.0, max_distance_delta=0.0)
    return Comparison(
        top1_match=all(comparison.top1_match for comparison in comparisons),
        top5_overlap=sum(comparison.top5_overlap for comparison in comparisons) / len(comparisons),
        max_distance_delta=max(comparison.max_distance_delta for comparison in comparisons),
    )


def _marked(matches: Sequence[Match], common: Counter[tuple[str, str]]) -> Iterator[tuple[Match, bool]]:
    """Each match, and whether it is one of ``common``; of equal keys the nearest are."""
    left = common.copy()
    for match in matches:
        shared = left[_key(match)] > 0
        left[_key(match)] -= shared
        yield match, shared


def _overlap(left: Sequence[Match], right: Sequence[Match]) -> float:
    if not left and not right:
        return 1.0
    common = Counter(map(_key, left)) & Counter(map(_key, right))
    return common.total() / max(len(left), len(right))


def _largest_delta(left: Sequence[Match], right: Sequence[Match]) -> float:
    # One picture may hold several enrolled faces: the same key then stands several times, paired in order.
    theirs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for match in reversed(right):
        theirs[_key(match)].append(match.distance)
    largest = 0.0
    for match in left:
        distances = theirs.get(_key(match))
        if distances:
            largest = max(largest, abs(match.distance - distances.pop()))
    return largest


def _key(match: Match) -> tuple[str, str]:
    return match.person, match.source
