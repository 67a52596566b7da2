"""A threshold for a wanted false-match rate, and how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from runtime.faces import FloatArray
from runtime.verification import (
    Distances,
    allowed,
    impostor_comparisons,
    largest_threshold,
    nearest_impostors,
    rate_at_most,
)

RULE_OF_30 = 30
"""So many errors must be seen for a rate to be known to about a third of itself (Doddington et al. 2000)."""

MANY_PEOPLE = 50
"""Among fewer people one pair of look-alikes moves the rate more than all else: 50 people make 1,225 pairs."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A threshold for a wanted false-match rate, and how far to trust it.

    Attributes:
        fmr: the rate wanted, of one picture against one of somebody else.
        threshold: the largest cosine distance that keeps it on these pictures; None when they are too few to show it.
        impostor_pairs: pairs of pictures of two people that it rests on; every picture is in many of them.
        people: how many people these pairs show.
        false_matches: pairs among them that the threshold accepts.
        fmr_at_most: 95 % upper limit of the true rate if the pairs were independent, which they are not quite.
        well_supported: at least :data:`RULE_OF_30` false matches were seen, among at least :data:`MANY_PEOPLE` people.
        genuine_pairs: pairs of one person among the same pictures.
        true_matches: share of these that it accepts; None without such pairs.
    """

    fmr: float
    threshold: float | None
    impostor_pairs: int
    people: int
    false_matches: int
    fmr_at_most: float
    well_supported: bool
    genuine_pairs: int
    true_matches: float | None

    def statement(self) -> str:
        """What the figures allow to say, in words."""
        base = f"{self.impostor_pairs:,} pairs of two people ({self.people:,} people)"
        if self.threshold is None:
            return (
                f"No threshold: {base} cannot show a false-match rate of {self.fmr:g}; it takes at least "
                f"{round(1 / self.fmr):,}, and {round(RULE_OF_30 / self.fmr):,} to know it well. "
                "Add pictures of more people, or ask for a higher rate."
            )
        text = (
            f"At a distance of {self.threshold:.4f}, {self.false_matches:,} of {base} match falsely. "
            f"The true rate is at most {self.fmr_at_most:.2g} (95 % limit, if the pairs were independent). "
            "In a gallery of N faces a stranger is compared N times, and gets a name up to N times as often."
        )
        if self.false_matches < RULE_OF_30:
            text += (
                f" That is fewer than {RULE_OF_30} false matches: the rate is known only roughly. "
                f"{round(RULE_OF_30 / self.fmr):,} pairs would know it well."
            )
        if self.people < MANY_PEOPLE:
            text += f" Pictures of so few people say little about others; take at least {MANY_PEOPLE}."
        return text


def recommend(embeddings: FloatArray, labels: Sequence[str], fmr: float) -> Recommendation:
    """A threshold for a false-match rate, from all pairs of pictures of two people.

    Args:
        embeddings: (n, d) float32, rows of length 1.
        labels: who each row is.
        fmr: the rate wanted, above 0 and below 1.
    """
    total = impostor_comparisons(labels)
    genuine = _genuine_distances(embeddings, labels)
    people = len(set(labels))
    accepted = allowed(total, fmr)
    if accepted < 1:
        limit = rate_at_most(0, total) if total else 1.0
        return Recommendation(fmr, None, total, people, 0, limit, False, len(genuine), None)
    nearest = nearest_impostors(embeddings, labels, accepted + 1)
    threshold = largest_threshold(nearest, total, fmr)
    seen = int(np.count_nonzero(nearest <= threshold))
    return Recommendation(
        fmr=fmr,
        threshold=threshold,
        impostor_pairs=total,
        people=people,
        false_matches=seen,
        fmr_at_most=rate_at_most(seen, total),
        well_supported=seen >= RULE_OF_30 and people >= MANY_PEOPLE,
        genuine_pairs=len(genuine),
        true_matches=float(np.mean(genuine <= threshold)) if len(genuine) else None,
    )


def _genuine_distances(embeddings: FloatArray, labels: Sequence[str]) -> Distances:
    rows: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        rows.setdefault(label, []).append(index)
    pairs = [pair for indices in rows.values() for pair in combinations(indices, 2)]
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    return np.asarray(1 - (embeddings[left].astype(np.float64) * embeddings[right]).sum(axis=1), np.float64)
