"""Which numbers the values inside a network take, and which part of them an int8 scale should span.

ONNX Runtime's own calibrators keep every value of every picture in memory and cut both ends of a histogram alike about
zero, which wastes levels on what a PReLU has made nearly positive; so the counting is done here, picture by picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from convert.watch import watched
from runtime.faces import FloatArray

BINS, LEVELS = 2048, 256
_SHARES = np.linspace(0.3, 1.0, 71)
"""Parts of the whole range that are tried as the range of a scale."""

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from ``low`` to ``high``, zero among them."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often a value was where.

    Attributes:
        low, high: smallest and largest number seen.
        counts: (BINS,) float64, in equal steps from ``low`` to ``high``.
    """

    low: float
    high: float
    counts: Counts

    @property
    def edges(self) -> Counts:
        """(BINS + 1,) float64."""
        return np.linspace(self.low, self.high, BINS + 1)


Method = Callable[[Histogram], Range]


def min_max(histogram: Histogram) -> Range:
    """All that was seen."""
    return Range(min(histogram.low, 0.0), max(histogram.high, 0.0))


def percentile(histogram: Histogram, share: float) -> Range:
    """What is left when the rarest numbers at both ends, ``1 - share`` of all together, are cut off."""
    below = np.cumsum(histogram.counts) / histogram.counts.sum()
    cut = (1 - share) / 2
    first, last = int(np.searchsorted(below, cut)), int(np.searchsorted(below, 1 - cut))
    edges = histogram.edges
    return Range(min(float(edges[first]), 0.0), max(float(edges[min(last, BINS - 1) + 1]), 0.0))


def squared_error(histogram: Histogram) -> Range:
    """Where clipping and rounding together lose least: the smallest sum of squared errors.

    A number within the range loses a twelfth of a squared level on average, one beyond it what lies between.
    """
    whole, middles = min_max(histogram), _middles(histogram)
    lows, highs = whole.low * _SHARES[:, None], whole.high * _SHARES[:, None]
    below = (histogram.counts * np.minimum(middles - lows, 0) ** 2).sum(axis=1)
    above = (histogram.counts * np.maximum(middles - highs, 0) ** 2).sum(axis=1)
    levels = (highs.T - lows) / (LEVELS - 1)
    lost = below[:, None] + above[None] + histogram.counts.sum() * levels**2 / 12
    low, high = np.unravel_index(int(np.argmin(lost)), lost.shape)
    return Range(float(lows[low, 0]), float(highs[high, 0]))


def entropy(histogram: Histogram) -> Range:
    """Where the histogram that is left differs least from the original, by Kullback and Leibler's divergence.

    The idea is that of TensorRT (Migacz 2017, "8-bit inference with TensorRT"): numbers beyond the range fall on its
    ends, and within it a level's bins become alike.
    """
    whole, middles = min_max(histogram), _middles(histogram)
    divergences = [_divergence(histogram.counts, middles, whole.low * share, whole.high * share) for share in _SHARES]
    best = float(_SHARES[int(np.argmin(divergences))])
    return Range(whole.low * best, whole.high * best)


METHODS: Mapping[str, Method] = {
    "min-max": min_max,
    "percentile 99.999": lambda histogram: percentile(histogram, 0.99999),
    "percentile 99.99": lambda histogram: percentile(histogram, 0.9999),
    "percentile 99.9": lambda histogram: percentile(histogram, 0.999),
    "entropy": entropy,
    "squared error": squared_error,
}


def histograms(
    model: onnx.ModelProto,
    names: Sequence[str],
    pictures: FloatArray,
    step: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Histogram]:
    """Histograms of values of a network.

    Args:
        model: the network, with one input.
        names: of the values.
        pictures: (n, ...) float32, network inputs, one picture each.
        step: told how many of how many runs are done; there are two for each picture.

    Raises:
        ValueError: a value is not finite.
    """
    total = 2 * len(pictures)
    lows, highs = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    for done, values in enumerate(watched(model, names, pictures), start=1):
        for name, value in values.items():
            lows[name] = min(lows[name], float(value.min()))
            highs[name] = max(highs[name], float(value.max()))
        step(done, total)
    wrong = [name for name in names if not np.isfinite([lows[name], highs[name]]).all()]
    if wrong:
        raise ValueError(f"the value {wrong[0]} is not finite")
    counts = {name: np.zeros(BINS) for name in names}
    for done, values in enumerate(watched(model, names, pictures), start=1 + len(pictures)):
        for name, value in values.items():
            width = max(highs[name] - lows[name], 1e-12)
            places = ((value.reshape(-1) - lows[name]) * (BINS / width)).astype(np.int64)
            counts[name] += np.bincount(np.minimum(places, BINS - 1), minlength=BINS)
        step(done, total)
    return {name: Histogram(lows[name], highs[name], counts[name]) for name in names}


def _middles(histogram: Histogram) -> Counts:
    edges = histogram.edges
    return np.asarray((edges[1:] + edges[:-1]) / 2, np.float64)


def _divergence(counts: Counts, middles: Counts, low: float, high: float) -> float:
    width = max(high - low, 1e-12)
    level = np.clip((middles - low) / width * LEVELS, 0, LEVELS - 1).astype(np.int64)
    inside = (middles >= low) & (middles <= high)
    seen = inside & (counts > 0)
    if not seen.any():
        return np.inf
    kept = np.where(inside, counts, 0.0)
    clipped = kept.copy()
    places = np.flatnonzero(inside)
    clipped[places[0]] += counts[: places[0]].sum()
    clipped[places[-1]] += counts[places[-1] + 1 :].sum()
    sums = np.bincount(level, weights=kept, minlength=LEVELS)
    bins = np.bincount(level, weights=seen, minlength=LEVELS)
    coarse = np.where(seen, sums[level] / np.maximum(bins[level], 1), 0.0)
    here = clipped > 0
    p, q = clipped[here] / clipped.sum(), np.maximum(coarse[here] / coarse.sum(), 1e-9)
    return float((p * np.log(p / q)).sum())
