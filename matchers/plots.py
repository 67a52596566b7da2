"""Plots as SVG text that takes its colours and its letters from the page around it.

matplotlib draws with stand-in colours, which become CSS variables afterwards; so one plot fits light and dark pages.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.verification import Distances, Roc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _MUTED, _LINE, _FIRST, _SECOND, _THIRD, _BAD = (f"#0101{number:02x}" for number in range(1, 8))
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    _FIRST: "var(--first)",
    _SECOND: "var(--second)",
    _THIRD: "var(--third)",
    _BAD: "var(--bad)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "plot",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "date.converter": "concise",
}
_MOST_POINTS = 2000
_SMALLEST_RATE = 1e-5


def distance_scatter(pkl: Distances, pgvector: Distances, threshold: float) -> str:
    """Distances of the same matches in both stores against each other; the threshold as dashed lines."""
    with _style():
        figure, axes = _axes()
        if len(pkl) > _MOST_POINTS:
            chosen = np.random.default_rng(0).choice(len(pkl), _MOST_POINTS, replace=False)
            pkl, pgvector = pkl[chosen], pgvector[chosen]
        top = max(float(np.max(values, initial=threshold)) for values in (pkl, pgvector)) * 1.05
        axes.plot([0, top], [0, top], color=_LINE, linewidth=1)
        axes.axvline(threshold, color=_BAD, linestyle="--", linewidth=1)
        axes.axhline(threshold, color=_BAD, linestyle="--", linewidth=1)
        axes.scatter(pkl, pgvector, s=14, color=_FIRST, alpha=0.55, linewidths=0, clip_on=False)
        axes.set(xlabel="distance in PKL", ylabel="distance in pgvector", xlim=(0, top), ylim=(0, top))
        return _svg(figure, "Distances of matches, PKL against pgvector")


def delta_histogram(deltas: Distances) -> str:
    """How many faces have which largest difference between the two distances of one match."""
    with _style():
        figure, axes = _axes()
        floor = 1e-9
        exponents = np.log10(np.maximum(deltas, floor))
        low, high = np.floor(exponents.min(initial=-9)), max(np.ceil(exponents.max(initial=-5)), -5)
        axes.hist(10**exponents, bins=np.logspace(low, high, 33).tolist(), color=_FIRST, alpha=0.85)
        axes.set_xscale("log")
        axes.set(xlabel="largest difference of one distance", ylabel="faces")
        return _svg(figure, "Differences between the distances of both stores")


def latency_distributions(milliseconds: Mapping[str, Sequence[float]]) -> str:
    """Share of searches answered within a time, one curve for each way to search."""
    with _style():
        figure, axes = _axes()
        for (name, values), colour in zip(milliseconds.items(), (_FIRST, _SECOND, _THIRD), strict=False):
            ordered = np.sort(np.maximum(values, 1e-3))
            shares = np.arange(1, len(ordered) + 1) / max(len(ordered), 1) * 100
            axes.step(ordered, shares, where="post", color=colour, label=name)
        axes.set_xscale("log")
        axes.set(xlabel="milliseconds", ylabel="searches answered, %", ylim=(0, 102))
        _legend(axes)
        return _svg(figure, "Search times")


def agreement_over_size(sizes: Sequence[int], top1: Sequence[float], overlap: Sequence[float]) -> str:
    """Agreement of both stores in galleries of several sizes, in per cent."""
    with _style():
        figure, axes = _axes()
        axes.plot(sizes, np.multiply(top1, 100), marker="o", color=_FIRST, label="same person first")
        axes.plot(sizes, np.multiply(overlap, 100), marker="s", color=_SECOND, label="overlap of the first five")
        axes.set_xscale("log")
        axes.set_xticks(list(sizes), [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        lowest = min([*top1, *overlap], default=1.0) * 100
        axes.set(xlabel="faces in the gallery", ylabel="agreement, %", ylim=(min(lowest - 1, 95), 100.3))
        _legend(axes)
        return _svg(figure, "Agreement over the size of the gallery")


def course(
    times: Sequence[datetime],
    values: Mapping[str, Sequence[float | None]],
    unit: str,
    label: str,
    most: float | None = None,
) -> str:
    """What changed over time, one line for each name; None where nothing was measured.

    Args:
        unit: what the values are, for the axis.
        label: what is shown, for those who cannot see it.
        most: the largest value that there can be; without it the axis begins at 0.
    """
    with _style():
        figure, axes = _axes()
        for (name, points), colour in zip(values.items(), (_FIRST, _SECOND, _THIRD), strict=False):
            known = [(time, point) for time, point in zip(times, points, strict=True) if point is not None]
            if known:
                axes.plot(*zip(*known, strict=True), marker="o", markersize=3, color=colour, label=name)
        axes.set(ylabel=unit)
        if most is None:
            axes.set_ylim(bottom=0, top=max(axes.get_ylim()[1], 1))
            axes.locator_params(axis="y", integer=True)
        else:
            axes.set_ylim(bottom=min(axes.get_ylim()[0], 0.95 * most), top=1.003 * most)
        if axes.lines:
            _legend(axes)
        return _svg(figure, label)


def receiver_operating_characteristic(curve: Roc, points: Mapping[str, tuple[float, float]]) -> str:
    """True against false accept rate; ``points``: name to (false, true accept rate) of thresholds to mark."""
    with _style():
        figure, axes = _axes()
        rates = [*curve.far[curve.far > 0], *(far for far, _ in points.values() if far > 0)]
        left = max(min(rates) / 2, _SMALLEST_RATE)
        axes.step(np.maximum(curve.far, left), curve.tar * 100, where="post", color=_FIRST)
        for (name, (far, tar)), colour in zip(points.items(), (_BAD, _SECOND, _THIRD), strict=False):
            axes.plot([max(far, left)], [tar * 100], "o", color=colour, label=name, clip_on=False)
        axes.set_xscale("log")
        lowest = min([float(curve.tar[curve.far <= left][-1]), *(tar for _, tar in points.values())]) * 100
        axes.set(xlabel="false accept rate", ylabel="true accept rate, %", xlim=(left, 1.1))
        axes.set_ylim(max(0, min(lowest - 1, 94)), 100.3)
        _legend(axes)
        return _svg(figure, "Receiver operating characteristic")


def distance_histograms(genuine: Distances, impostor: Distances, threshold: float) -> str:
    """Distances between pictures of one person and of two, each kind as a share of its own."""
    with _style():
        figure, axes = _axes()
        top = max(float(np.max(values, initial=threshold)) for values in (genuine, impostor))
        bins = np.linspace(0, max(top, threshold) * 1.02, 60).tolist()
        for name, values, colour in (("one person", genuine, _FIRST), ("two people", impostor, _SECOND)):
            weights = np.full(len(values), 100 / max(len(values), 1))
            axes.hist(np.maximum(values, 0), bins=bins, weights=weights, color=colour, alpha=0.6, label=name)
        axes.axvline(threshold, color=_BAD, linestyle="--", linewidth=1.2, label="threshold")
        axes.set(xlabel="cosine distance", ylabel="pairs of its kind, %")
        _legend(axes)
        return _svg(figure, "Distances of pairs of one person and of two people")


def identification_errors(fpir: Distances, fnir: Distances, configured: tuple[float, float]) -> str:
    """False negative against false positive identification rate; ``configured``: (FPIR, FNIR) at the threshold."""
    with _style():
        figure, axes = _axes()
        smallest = float(np.min(fpir[fpir > 0], initial=1))
        axes.step(np.maximum(fpir, smallest / 2), fnir * 100, where="post", color=_FIRST)
        axes.plot([max(configured[0], smallest / 2)], [configured[1] * 100], "o", color=_BAD, label="threshold")
        axes.set_xscale("log")
        axes.set(xlabel="false positive identification rate", ylabel="false negative identification rate, %")
        top = max(float(fnir[0]), configured[1], 0.01) * 100
        axes.set_ylim(-0.03 * top, 1.08 * top)
        _legend(axes)
        return _svg(figure, "Errors of identification with unknown people")


def _style() -> AbstractContextManager[None]:
    import matplotlib as mpl  # noqa: PLC0415

    return mpl.rc_context(_STYLE)


def _axes() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(5, 3.3), layout="constrained")
    return figure, figure.add_subplot()


def _legend(axes: Axes) -> None:
    """Above the plot, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, columnspacing=1.2, handlelength=1.4)


def _svg(figure: Figure, label: str) -> str:
    """The figure as an ``svg`` element for a page: no size of its own, no address, ids that no other plot has."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    own = hashlib.sha1(label.encode(), usedforsecurity=False).hexdigest()[:6]
    svg = re.sub(r' id="', f' id="{own}-', svg)
    svg = re.sub(r'(xlink:)?href="#', f'href="#{own}-', svg)
    svg = svg.replace("url(#", f"url(#{own}-")
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None, "matplotlib gives every SVG a view box"
    return re.sub(r"<svg[^>]*>", f'<svg {box[0]} role="img" aria-label="{label}">', svg, count=1).strip()
