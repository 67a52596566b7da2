"""How well distances tell one person from two: pure functions on arrays of distances.

*Genuine* distances lie between two pictures of one person, *impostor* distances between pictures of two people. A
pair is accepted when its distance is at most the threshold, as the service does it. The false accept rate (FAR) is the
share of impostor pairs accepted, the true accept rate (TAR) that of genuine pairs (ISO/IEC 19795-1).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.faces import FloatArray

Distances = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

MAX_DISTANCE = 2.0
"""The largest cosine distance."""

_BLOCK = 512


@dataclass(frozen=True, slots=True, eq=False)
class Roc:
    """Receiver operating characteristic, from accepting nothing to accepting everything.

    Attributes:
        thresholds: (n,) float64, rising; the first, -inf, accepts nothing.
        far: (n,) float64, false accept rate at each threshold.
        tar: (n,) float64, true accept rate at each threshold.
    """

    thresholds: Distances
    far: Distances
    tar: Distances


@dataclass(frozen=True, slots=True)
class Point:
    """One way to set the threshold.

    Attributes:
        threshold: cosine distance.
        far: share of impostor pairs that it accepts.
        tar: share of genuine pairs that it accepts.
    """

    threshold: float
    far: float
    tar: float


@dataclass(frozen=True, slots=True)
class FoldAccuracy:
    """Accuracy by cross-validation.

    Attributes:
        accuracies: per fold, at the threshold that is best on the other folds.
        thresholds: those thresholds.
    """

    accuracies: tuple[float, ...]
    thresholds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean accuracy over the folds."""
        return float(np.mean(self.accuracies))

    @property
    def deviation(self) -> float:
        """Standard deviation over the folds, with n - 1 in the denominator; 0 for one fold."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0

    @property
    def standard_error(self) -> float:
        """Deviation of the mean, as the tables of LFW have it (Huang et al. 2007): deviation / sqrt(folds)."""
        return self.deviation / math.sqrt(len(self.accuracies))


def roc(genuine: Distances, impostor: Distances) -> Roc:
    """The curve through every distinct distance. Both arrays must hold at least one distance."""
    thresholds = np.concatenate([[-np.inf], np.unique(np.concatenate([genuine, impostor]))])
    return Roc(thresholds, _share_accepted(impostor, thresholds), _share_accepted(genuine, thresholds))


def area_under(curve: Roc) -> float:
    """Area under the curve: how often a genuine pair is nearer than an impostor pair, ties counting half."""
    return float(((curve.tar[1:] + curve.tar[:-1]) / 2 * np.diff(curve.far)).sum())


def equal_error_rate(curve: Roc) -> Point:
    """Where the false accept rate equals the false reject rate, on straight lines between the curve's points.

    The point's ``far`` is the equal error rate and ``tar`` is 1 - ``far``.
    """
    difference = curve.far - (1 - curve.tar)
    after = int(np.argmax(difference >= 0))
    before = after - 1
    weight = -difference[before] / (difference[after] - difference[before])
    rate = float(curve.far[before] + weight * (curve.far[after] - curve.far[before]))
    return Point(float(curve.thresholds[after]), rate, 1 - rate)


def point_at(genuine: Distances, impostor: Distances, threshold: float) -> Point:
    """Both rates at one threshold."""
    return Point(threshold, float(np.mean(impostor <= threshold)), float(np.mean(genuine <= threshold)))


def point_at_far(genuine: Distances, impostor: Distances, far: float) -> Point:
    """The largest threshold whose false accept rate is at most ``far``, with its rates."""
    return point_at(genuine, impostor, largest_threshold(np.sort(impostor), len(impostor), far))


def largest_threshold(nearest: Distances, total: int, far: float) -> float:
    """The largest threshold that accepts at most the share ``far`` of ``total`` impostor comparisons.

    Args:
        nearest: at least the ``floor(far * total) + 1`` smallest impostor distances, rising; all when there are fewer.
    """
    accepted = allowed(total, far)
    if accepted >= total:
        return MAX_DISTANCE
    return float(np.nextafter(nearest[accepted], -np.inf))


def allowed(total: int, rate: float) -> int:
    """How many of ``total`` may be wrong for the share to be at most ``rate``."""
    # 0.29 * 100 is 28.999999999999996.
    return math.floor(rate * total + 1e-9)


def rate_at_most(errors: int, trials: int, confidence: float = 0.95) -> float:
    """Upper limit of a rate of which ``errors`` out of ``trials`` were seen: the larger rates are refuted.

    The one-sided exact limit of Clopper and Pearson (1934); without errors it is about 3 / ``trials`` at 95 %. It holds
    for independent trials: pairs that share pictures know less than their number says.

    Args:
        trials: at least 1.
    """
    if errors >= trials:
        return 1.0
    counts = np.arange(errors + 1)
    ways = np.array([math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in counts])
    low, high = errors / trials, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        logs = ways + counts * math.log(rate) + (trials - counts) * math.log1p(-rate) if rate < 1 else ways - np.inf
        as_few = float(np.exp(logs).sum())
        low, high = (rate, high) if as_few > 1 - confidence else (low, rate)
    return high


def best_threshold(distances: Distances, same: Flags) -> tuple[float, float]:
    """The threshold that decides most pairs rightly, and the share of pairs that it decides rightly.

    It lies half-way between two distances; of equally good ones it is the smallest.

    Args:
        distances: (n,) float64, n at least 1.
        same: (n,) bool, whether each pair shows one person.
    """
    order = np.argsort(distances, kind="stable")
    ordered, genuine = distances[order], same[order]
    rising = np.concatenate([[0], np.cumsum(np.where(genuine, 1, -1))])
    last_of_equals = np.concatenate([[True], ordered[1:] != ordered[:-1], [True]])
    rising = np.where(last_of_equals, rising, -len(ordered) - 1)
    cut = int(np.argmax(rising))
    return _between(ordered, cut), float((rising[cut] + np.count_nonzero(~same)) / len(distances))


def fold_accuracy(distances: Distances, same: Flags, folds: Integers) -> FoldAccuracy:
    """Accuracy of each fold at the threshold that is best on all other folds.

    With one fold only, its own best threshold is taken, which flatters.

    Args:
        distances: (n,) float64.
        same: (n,) bool.
        folds: (n,) int64, the fold of each pair.
    """
    accuracies, thresholds = [], []
    for fold in np.unique(folds):
        held_out = folds == fold
        others = ~held_out if not held_out.all() else held_out
        threshold, _ = best_threshold(distances[others], same[others])
        accuracies.append(float(np.mean((distances[held_out] <= threshold) == same[held_out])))
        thresholds.append(threshold)
    return FoldAccuracy(tuple(accuracies), tuple(thresholds))


def impostor_comparisons(labels: Sequence[str]) -> int:
    """How many pairs of pictures show two people."""
    same = sum(count * (count - 1) // 2 for count in Counter(labels).values())
    return len(labels) * (len(labels) - 1) // 2 - same


def nearest_impostors(embeddings: FloatArray, labels: Sequence[str], count: int) -> Distances:
    """The ``count`` smallest distances between pictures of two people, rising, out of all pairs of pictures.

    Args:
        embeddings: (n, d) float32, rows of length 1.
        labels: who each row is.
    """
    number = {label: index for index, label in enumerate(dict.fromkeys(labels))}
    people = np.array([number[label] for label in labels], np.int64)
    kept = np.empty(0, np.float64)
    for start in range(0, len(embeddings), _BLOCK):
        rows = slice(start, start + _BLOCK)
        distances = 1 - embeddings[rows] @ embeddings[start:].T
        later = np.arange(len(embeddings) - start)[None] > np.arange(len(distances))[:, None]
        chosen = distances[later & (people[rows, None] != people[None, start:])]
        kept = np.concatenate([kept, chosen.astype(np.float64)])
        if len(kept) > count:
            kept = np.partition(kept, count)[:count] if count else kept[:0]
    return np.sort(kept)


def _between(ordered: Distances, cut: int) -> float:
    """A threshold that accepts the first ``cut`` of ``ordered`` and no more."""
    if cut == 0:
        return float(np.nextafter(ordered[0], -np.inf))
    if cut == len(ordered):
        return float(ordered[-1])
    low, high = ordered[cut - 1], ordered[cut]
    middle = (low + high) / 2
    return float(middle if middle < high else low)


def _share_accepted(distances: Distances, thresholds: Distances) -> Distances:
    return np.searchsorted(np.sort(distances), thresholds, side="right") / len(distances)
