"""Do two stores say the same about a face?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from matchers.base import Match

OVERLAP_DEPTH = 5


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far two result lists agree.

    Attributes:
        top1_match: both name the same person first; two empty lists agree.
        top5_overlap: share of the first five results that both hold, 0 to 1; two empty lists give 1.
        max_distance_delta: largest difference between the two distances of one result, over the results that both
            lists hold; 0 when they hold none in common.
    """

    top1_match: bool
    top5_overlap: float
    max_distance_delta: float


def compare(pkl: Sequence[Match], pgvector: Sequence[Match]) -> Comparison:
    """Compare two result lists for one face, both nearest first. A result is known by its person and source."""
    first_pkl = pkl[0].person if pkl else None
    first_pgvector = pgvector[0].person if pgvector else None
    return Comparison(
        top1_match=first_pkl == first_pgvector,
        top5_overlap=_overlap(pkl[:OVERLAP_DEPTH], pgvector[:OVERLAP_DEPTH]),
        max_distance_delta=_largest_delta(pkl, pgvector),
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
