"""How well a gallery names people, and turns strangers away: pure functions on embeddings.

The terms are those of ISO/IEC 19795-1 and of NIST's FRVT 1:N. Some people are enrolled (the *gallery*); further
pictures of them are *known probes*, pictures of other people *unknown probes*. A search gives the nearest enrolled
person. The false positive identification rate (FPIR) is the share of unknown probes whose nearest enrolled face is at
most the threshold away; the false negative identification rate (FNIR) the share of known probes whose own person is
not the nearest one, or is farther than the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.faces import FloatArray
from runtime.verification import Distances, Integers, allowed, largest_threshold

UNKNOWN_SHARE = 0.25
"""Share of the people with several pictures who are kept out of the gallery."""

_BLOCK = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Which pictures play which part; rows of the embeddings.

    Attributes:
        gallery: (g,) int64, one picture of each enrolled person.
        known: (k,) int64, the other pictures of enrolled people.
        unknown: (u,) int64, all pictures of people who are not enrolled.
    """

    gallery: Integers
    known: Integers
    unknown: Integers


@dataclass(frozen=True, slots=True, eq=False)
class Searches:
    """What the searches found.

    Attributes:
        enrolled: people in the gallery.
        ranks: (k,) int64, for each known probe the place of its own person among the enrolled, from 1; people who are
            equally near come before it.
        own: (k,) float64, distance of each known probe to its own person.
        strangers: (u,) float64, distance of each unknown probe to the nearest enrolled person.
    """

    enrolled: int
    ranks: Integers
    own: Distances
    strangers: Distances

    def rank(self, places: int) -> float:
        """Share of known probes whose own person is among the nearest ``places``."""
        return float(np.mean(self.ranks <= places))

    def fnir(self, threshold: float) -> float:
        """False negative identification rate at a threshold."""
        return float(1 - np.mean((self.ranks == 1) & (self.own <= threshold)))

    def fpir(self, threshold: float) -> float:
        """False positive identification rate at a threshold."""
        return float(np.mean(self.strangers <= threshold))

    def curve(self) -> tuple[Distances, Distances]:
        """The lowest FNIR at every FPIR that a threshold can give: two arrays of float64, the first one rising."""
        limits = np.unique(np.concatenate([[-np.inf], self.strangers, self.own]))
        fpir = np.searchsorted(np.sort(self.strangers), limits, side="right") / len(self.strangers)
        found = np.sort(self.own[self.ranks == 1])
        fnir = 1 - np.searchsorted(found, limits, side="right") / len(self.own)
        last = np.append(np.flatnonzero(np.diff(fpir)), len(fpir) - 1)
        return fpir[last], fnir[last]

    def threshold(self, fpir: float) -> float:
        """The largest threshold whose false positive identification rate is at most ``fpir``."""
        return largest_threshold(np.sort(self.strangers), len(self.strangers), fpir)


def supports(probes: int, rate: float) -> bool:
    """Whether so many probes can show a rate at all: at least one of them may be wrong."""
    return allowed(probes, rate) >= 1


def split(labels: Sequence[str], seed: int) -> Split | None:
    """A random part for each picture; None when there are too few people.

    People with one picture are unknown, and so is a quarter of the others; of the rest one picture each is enrolled. At
    least two people must be enrolled and one be unknown.

    Args:
        labels: who each picture shows.
        seed: other seeds give other splits.
    """
    random = np.random.default_rng(seed)
    pictures: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        pictures.setdefault(label, []).append(index)
    several = [label for label, indices in pictures.items() if len(indices) > 1]
    single = len(pictures) - len(several)
    left_out = max(round(UNKNOWN_SHARE * len(several)), 0 if single else 1)
    if len(several) - left_out < 2:
        return None
    order = [several[index] for index in random.permutation(len(several))]
    enrolled = set(order[left_out:])
    gallery, known, unknown = [], [], []
    for label, indices in pictures.items():
        if label in enrolled:
            chosen = int(random.integers(len(indices)))
            gallery.append(indices[chosen])
            known += [index for place, index in enumerate(indices) if place != chosen]
        else:
            unknown += indices
    return Split(*(np.array(sorted(part), np.int64) for part in (gallery, known, unknown)))


def search(embeddings: FloatArray, labels: Sequence[str], parts: Split) -> Searches:
    """Search every probe in the gallery.

    Args:
        embeddings: (n, d) float32, rows of length 1.
        labels: who each row is.
        parts: the gallery holds each person once.
    """
    place = {labels[row]: column for column, row in enumerate(parts.gallery)}
    enrolled = embeddings[parts.gallery]
    ranks = np.empty(len(parts.known), np.int64)
    own = np.empty(len(parts.known), np.float64)
    strangers = np.empty(len(parts.unknown), np.float64)
    for start in range(0, len(parts.known), _BLOCK):
        rows = parts.known[start : start + _BLOCK]
        distances = 1 - (embeddings[rows] @ enrolled.T).astype(np.float64)
        columns = np.array([place[labels[row]] for row in rows])
        mine = distances[np.arange(len(rows)), columns]
        own[start : start + len(rows)] = mine
        ranks[start : start + len(rows)] = (distances <= mine[:, None]).sum(axis=1)
    for start in range(0, len(parts.unknown), _BLOCK):
        rows = parts.unknown[start : start + _BLOCK]
        strangers[start : start + len(rows)] = 1 - (embeddings[rows] @ enrolled.T).max(axis=1).astype(np.float64)
    return Searches(len(parts.gallery), ranks, own, strangers)
