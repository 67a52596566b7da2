"""A validation as a page, as JSON, and as rows for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np

from matchers.base import Match
from matchers.gates import GateResult
from matchers.html import Card, Fact, Page, Plot, Section, Table
from matchers.plots import agreement_over_size, delta_histogram, distance_scatter, latency_distributions
from matchers.reasons import REASONS
from matchers.validation import Disagreement, Validation
from runtime.decode import decode
from runtime.errors import ImageError

_CARDS = 300
_LISTED = 200
_SHOWN = 5
_CROP = 160
_PERSONAL = (
    "This report holds personal data: names of people and of their pictures, and the faces on which the stores "
    "disagree. Its files are readable by their owner alone. Keep it where the pictures may be kept, and delete it with "
    "them."
)
_GATES = {
    "comparisons": "faces compared",
    "top1_rate": "same person first",
    "top5_overlap": "overlap of the first five",
    "failure_rate": "searches that pgvector failed",
    "differences": "pictures that the stores do not hold alike",
}


def as_json(found: Validation) -> dict[str, Any]:
    """What ``--json`` prints and ``report.json`` holds."""
    return {
        "domain": found.domain,
        "where": found.where,
        "models": found.models,
        "threshold": found.threshold,
        "holds": found.holds,
        "gates": [asdict(gate) for gate in found.gates],
        "pictures": found.pictures,
        "faces": found.faces,
        "without_face": found.without_face,
        "one_sided": found.one_sided,
        "differences": found.differences,
        "summary": asdict(found.summary),
        "latency_ms": {name: _percentiles(values) for name, values in found.times.items()},
        "names": None if found.names is None else {store: asdict(names) for store, names in found.names.items()},
        "left_out": found.left_out,
        "sizes": [asdict(point) for point in found.sizes],
        "sizes_note": found.sizes_note,
        "disagreements": [
            {
                "source": one.source,
                "box": one.box,
                "reason": one.reason,
                "pkl": [asdict(match) for match in one.pkl],
                "pgvector": [asdict(match) for match in one.pgvector],
            }
            for one in found.disagreements
        ],
        "problems": dict(found.problems),
    }


def as_page(found: Validation, made: str) -> Page:
    """The report for people."""
    models = f", {found.models}" if found.models else ""
    sections = [_gates(found), _distances(found), _latency(found), _sizes(found)]
    if found.names is not None:
        sections.append(_names(found))
    sections += [_disagreements(found), _pictures(found)]
    return Page(
        title=f"Do PKL and pgvector agree in {found.domain}?",
        lede=f"{found.pictures:,} pictures with {found.faces:,} faces, searched {_where(found)}{models}.",
        made=made,
        good=found.holds,
        verdict=verdict(found.gates),
        personal=_PERSONAL,
        facts=_facts(found),
        sections=sections,
    )


def gate_rows(gates: Sequence[GateResult]) -> list[tuple[str, str, str, str]]:
    """Name, figure, limit and verdict of each gate."""
    return [
        (
            _GATES.get(gate.name, gate.name),
            "not known" if gate.figure is None else _figure(gate.name, gate.figure),
            f"at {'least' if gate.at_least else 'most'} {_figure(gate.name, gate.limit)}",
            "holds" if gate.holds else "does not hold",
        )
        for gate in gates
    ]


def verdict(gates: Sequence[GateResult]) -> str:
    """What the gates come to, in a sentence or two."""
    closed = ", ".join(_GATES.get(gate.name, gate.name) for gate in gates if not gate.holds)
    if not closed:
        return "The gates hold: pgvector may answer alone."
    return f"The gates do not hold: {closed}. pgvector should not answer alone yet."


def latency_rows(found: Validation) -> list[tuple[str, ...]]:
    """Way of searching, searches, and milliseconds at the median, 95 % and 99 %."""
    rows = []
    for name, values in found.times.items():
        percentiles = _percentiles(values)
        rows.append((name, f"{len(values):,}", *(f"{percentiles[key]:.1f}" for key in ("p50", "p95", "p99"))))
    return rows


def name_rows(found: Validation) -> list[tuple[str, ...]]:
    """Store, and how many pictures it named rightly, wrongly and not."""
    return [
        (store, *(_share(count, names.judged) for count in (names.right, names.wrong, names.unnamed)))
        for store, names in (found.names or {}).items()
    ]


def reason_text(name: str) -> str:
    """A reason of a disagreement in words."""
    return next((text for reason, text in REASONS.items() if reason == name), name)


def names_note(found: Validation) -> str:
    """What was done about pictures that are enrolled themselves."""
    if found.left_out is None:
        return "Pictures that are enrolled themselves find themselves, which flatters both stores."
    how = "by digest or by source" if found.where == "in this process" else "by source or by a distance of 0"
    return (
        f"Leave one out: {found.left_out:,} enrolled faces that come from the searched pictures themselves ({how}) "
        "were left out of the results before the name was taken."
    )


def _where(found: Validation) -> str:
    return found.where if found.where == "in this process" else f"by {found.where}"


def _facts(found: Validation) -> list[Fact]:
    summary = found.summary
    delta = summary.distance_delta
    return [
        Fact("Same person first", _rate(summary.top1_rate), f"{summary.comparisons:,} faces"),
        Fact("Overlap of the first five", _rate(summary.top5_overlap)),
        Fact("Largest difference", "-" if delta is None else f"{delta.max:.1e}", "of one distance"),
        Fact("pgvector failed", f"{summary.failures:,}", f"of {summary.requests:,} searches"),
        Fact("Disagreements", f"{summary.disagreements:,}"),
        Fact("Threshold", f"{found.threshold:.4f}"),
    ]


def _gates(found: Validation) -> Section:
    rows = gate_rows(found.gates)
    bad = frozenset(index for index, gate in enumerate(found.gates) if not gate.holds)
    return Section(
        "Gates",
        "What must hold before a domain may leave PKL. The limits are the settings GATE_*.",
        tables=(Table(("gate", "figure", "limit", "verdict"), rows, bad),),
    )


def _distances(found: Validation) -> Section:
    plots = []
    if len(found.distances):
        plots.append(
            Plot(
                "PKL against pgvector",
                distance_scatter(found.distances[:, 0], found.distances[:, 1], found.threshold),
                "One point for each match that both found. On the line they measure the same; dashed: the threshold.",
            )
        )
    if len(found.deltas):
        plots.append(
            Plot(
                "Differences of distances",
                delta_histogram(found.deltas),
                "The largest of each face. float32 arithmetic alone makes about 1e-7; 1e-9 stands for none.",
            )
        )
    return Section("Distances", "" if plots else "No face was compared.", plots=plots)


def _latency(found: Validation) -> Section:
    plots = []
    if found.times:
        plots.append(
            Plot("Search times", latency_distributions(found.times), "Share of searches that took at most so long.")
        )
    text = (
        "Searches of all faces of a picture, one picture after the other, without reading the picture."
        if found.where == "in this process"
        else "PKL and pgvector: as the server measured them; request: the whole way, seen from here."
    )
    columns = ("way", "searches", "p50 ms", "p95 ms", "p99 ms")
    return Section("Times", text, tables=(Table(columns, latency_rows(found)),), plots=plots)


def _sizes(found: Validation) -> Section:
    if not found.sizes:
        return Section("Agreement over the size of the gallery", found.sizes_note or "Not measured.")
    columns = ("faces", "same first", "overlap", "largest difference", "PKL p50 ms", "pgvector p50 ms")
    rows = [
        (
            f"{point.size:,}",
            _rate(point.top1_rate),
            _rate(point.top5_overlap),
            f"{point.max_distance_delta:.1e}",
            *("-" if value is None else f"{value:.2f}" for value in (point.pkl_ms, point.pgvector_ms)),
        )
        for point in found.sizes
    ]
    plot = agreement_over_size(
        [point.size for point in found.sizes],
        [point.top1_rate for point in found.sizes],
        [point.top5_overlap for point in found.sizes],
    )
    return Section(
        "Agreement over the size of the gallery",
        found.sizes_note,
        tables=(Table(columns, rows),),
        plots=(Plot("Agreement", plot, "Both stores against each other, in growing parts of the gallery."),),
    )


def _names(found: Validation) -> Section:
    return Section(
        "Are the names right?",
        f"Judged by the folders, on pictures with one face. {names_note(found)}",
        tables=(Table(("store", "right", "wrong", "no name"), name_rows(found)),),
    )


def _disagreements(found: Validation) -> Section:
    if not found.disagreements:
        return Section("Disagreements", "None: both stores say the same about every face.")
    shown = found.disagreements[:_CARDS]
    rest = len(found.disagreements) - len(shown)
    more = f" The first {len(shown):,} are shown; report.json lists all." if rest else ""
    counts = [(reason_text(name), f"{count:,}") for name, count in found.summary.reasons.items()]
    return Section(
        "Disagreements",
        f"Every face about which the stores do not say the same, with the reason.{more}",
        tables=(Table(("reason", "faces"), counts),),
        cards=[_card(one) for one in shown],
    )


def _card(one: Disagreement) -> Card:
    return Card(
        jpeg=_crop(one),
        title=one.source,
        text=REASONS[one.reason],
        lists=(("PKL", _lines(one.pkl)), ("pgvector", _lines(one.pgvector))),
    )


def _lines(matches: Sequence[Match]) -> list[str]:
    lines = [f"{match.person} {match.distance:.6f} ({match.source})" for match in matches[:_SHOWN]]
    return lines or ["nothing found"]


def _crop(one: Disagreement) -> bytes | None:
    """The face with a quarter of its size around it, as JPEG; None when the picture cannot be read any more."""
    try:
        image = decode(one.path.read_bytes())
    except (OSError, ImageError):
        return None
    x, y, width, height = one.box
    top, left = max(y - height // 4, 0), max(x - width // 4, 0)
    cut = image[top : y + height + height // 4, left : x + width + width // 4]
    if not cut.size:
        return None
    scale = _CROP / max(cut.shape[:2])
    size = max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale))
    _, data = cv2.imencode(".jpg", cv2.resize(cut, size, interpolation=cv2.INTER_AREA))
    return bytes(data)


def _pictures(found: Validation) -> Section:
    missed = found.without_face
    text = f"In {missed:,} pictures no face was found." if missed else "Every picture has a face."
    if found.one_sided:
        text += f" {found.one_sided:,} were searched by the server in one store only and do not count."
    lines = [f"{source}: {problem}" for source, problem in found.problems.items()]
    if len(lines) > _LISTED:
        lines = [*lines[:_LISTED], f"and {len(lines) - _LISTED:,} more; report.json lists them all"]
    folded = [(f"{len(found.problems):,} pictures that could not be searched", lines)] if lines else []
    return Section("Pictures", text, folded=folded)


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    p50, p95, p99 = (float(value) for value in np.percentile(values, (50, 95, 99)))
    return {"p50": p50, "p95": p95, "p99": p99}


def _figure(name: str, value: float) -> str:
    return f"{value:,.0f}" if name in {"comparisons", "differences"} else f"{value:.2%}"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})" if total else "0"
