"""The choice of an int8 network: every way to set its ranges is tried on faces that it was not calibrated on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx

from convert.errors import PrecisionError
from convert.parity import MIN_COSINE
from convert.portraits import Say
from convert.progress import Step
from convert.quantise import prepare, quantisable, quantise, values_to_range
from convert.ranges import METHODS, Range, histograms
from convert.sensitivity import delicate_first
from convert.speed import interleaved
from runtime.embed import Embedder
from runtime.faces import Crops, FloatArray
from runtime.session import as_batch

SLOWER = 1.5
"""How much more a network may cost for the sake of layers in float that bring it nearer to its source.

Wide, since on a machine that does other things as well even the median of what a run costs wanders by a third."""
GAIN = 0.0005
"""A layer stays in float only if that brings so much mean cosine: it costs memory as well."""
ROUNDS = 15
EQUALISED, TRIED = 16, 12
"""On how many crops channels are equalised, and how many the delicate layers are found on."""
IN_FLOAT = (1, 2, 4)
"""So many of the most delicate layers stay in float, to try."""

Open = Callable[[onnx.ModelProto], Embedder]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to quantise, and what came of it on held-out faces.

    Attributes:
        ranges: how the ranges were chosen.
        in_float: names of the layers that stay in float.
        cosine_mean, cosine_min: to the fp32 network's embeddings.
        cost: milliseconds of all threads together, a face; None where it was not measured.
    """

    ranges: str
    in_float: tuple[str, ...]
    cosine_mean: float
    cosine_min: float
    cost: float | None = None

    def __str__(self) -> str:
        count = len(self.in_float)
        layers = f"{count} {'layer' if count == 1 else 'layers'} in float, " if count else ""
        cost = f", {self.cost:.1f} ms of CPU a face" if self.cost is not None else ""
        return (
            f"  ranges by {self.ranges}, {layers}cosine to fp32 "
            f"{self.cosine_mean:.4f} on average, {self.cosine_min:.4f} at least{cost}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The int8 network, what it is, and what else was tried."""

    model: onnx.ModelProto
    chosen: Candidate
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Attempt:
    candidate: Candidate
    model: onnx.ModelProto
    embedder: Embedder


class _Bench:
    """Makes candidates of one network and tries them."""

    def __init__(self, model: onnx.ModelProto, open_model: Open, held_out: Crops, expected: FloatArray) -> None:
        self._model = model
        self._open = open_model
        self._expected = expected
        self.nodes = quantisable(model)
        self.held_out = held_out

    def ranges(self, pictures: FloatArray, names: Iterable[str], step: Step) -> dict[str, dict[str, Range]]:
        """For each of the ways ``names``, the range of every value as ``pictures`` show it."""
        try:
            seen = histograms(self._model, values_to_range(self._model, self.nodes), pictures, step)
        except ValueError as error:
            raise PrecisionError(f"The network cannot be calibrated: {error}.") from error
        return {name: {value: METHODS[name](one) for value, one in seen.items()} for name in names}

    def attempt(self, candidate: Candidate, ranges: Mapping[str, Range]) -> _Attempt:
        nodes = [name for name in self.nodes if name not in candidate.in_float]
        return self.judge(candidate, quantise(self._model, ranges, nodes))

    def judge(self, candidate: Candidate, model: onnx.ModelProto) -> _Attempt:
        embedder = self._open(model)
        cosines = (embedder.embed(self.held_out) * self._expected).sum(axis=1)
        mean, least = float(cosines.mean()), float(cosines.min())
        return _Attempt(replace(candidate, cosine_mean=mean, cosine_min=least), model, embedder)


def choose(
    model: onnx.ModelProto,
    calibration: FloatArray,
    held_out: Crops,
    expected: FloatArray,
    *,
    open_model: Open,
    say: Say,
    step: Step,
) -> Choice:
    """The int8 network that comes nearest to ``model`` on held-out faces.

    First the ranges are chosen, by mean cosine; then how many of the layers that lose most stay in float, if that
    brings it nearer and costs hardly more. The network that is given then takes its ranges from all faces.

    Args:
        model: the fp32 network.
        calibration: (n, ...) float32, network inputs.
        held_out: (m, h, w, 3) crops.
        expected: (m, d) float32, embeddings of ``held_out`` by ``model``, rows of length 1.
        open_model: makes an embedder of a network.
        say: told each candidate.
        step: told how far the calibration is.

    Raises:
        PrecisionError: the network cannot be quantised, or gives numbers that are not finite.
    """
    prepared = prepare(model, calibration[:: max(len(calibration) // EQUALISED, 1)])
    bench = _Bench(prepared, open_model, held_out, expected)
    blank = Candidate("", (), 0.0, 0.0)
    laid_out = bench.judge(blank, prepared).candidate
    if not laid_out.cosine_min >= MIN_COSINE:
        raise PrecisionError(f"Laid out for int8 the network gives other embeddings: cosine {laid_out.cosine_min:.7f}.")
    ranges = bench.ranges(calibration, METHODS, step)
    tried = []
    for name in METHODS:
        tried.append(bench.attempt(replace(blank, ranges=name), ranges[name]))
        say(str(tried[-1].candidate))
    best = max(tried, key=_mean)
    chosen_ranges = ranges[best.candidate.ranges]
    delicate = delicate_first(prepared, chosen_ranges, bench.nodes, calibration[:TRIED])
    layered = _try_layers(bench, best, chosen_ranges, delicate)
    for attempt in layered:
        say(str(attempt.candidate))
    chosen = _simplest(layered)
    # How to do it is known: now every face may tell the ranges.
    name = chosen.candidate.ranges
    everything = np.concatenate([calibration, as_batch(held_out, chosen.embedder.card)])
    final = bench.attempt(chosen.candidate, bench.ranges(everything, [name], step)[name]).model
    return Choice(final, chosen.candidate, tuple(attempt.candidate for attempt in (*tried, *layered)))


def _try_layers(bench: _Bench, best: _Attempt, ranges: Mapping[str, Range], delicate: Sequence[str]) -> list[_Attempt]:
    """``best`` and the same with layers in float, with what each costs."""
    counts = [count for count in IN_FLOAT if count < len(delicate)]
    others = [replace(best.candidate, in_float=tuple(delicate[:count])) for count in counts]
    attempts = [best, *(bench.attempt(candidate, ranges) for candidate in others)]
    runs = [partial(attempt.embedder.embed, bench.held_out[:1]) for attempt in attempts]
    costs = interleaved(runs, ROUNDS, time.process_time)
    return [
        replace(attempt, candidate=replace(attempt.candidate, cost=cost))
        for attempt, cost in zip(attempts, costs, strict=True)
    ]


def _simplest(layered: Sequence[_Attempt]) -> _Attempt:
    """The one with the fewest layers in float that is hardly farther from its source than any that is as cheap."""
    cheapest = min(attempt.candidate.cost or 0 for attempt in layered)
    cheap = [attempt for attempt in layered if (attempt.candidate.cost or 0) <= cheapest * SLOWER]
    enough = max(map(_mean, cheap)) - GAIN
    return next(attempt for attempt in cheap if _mean(attempt) >= enough)


def _mean(attempt: _Attempt) -> float:
    return attempt.candidate.cosine_mean
