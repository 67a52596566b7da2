"""A report of recorded comparisons as a page, and as rows for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from matchers.base import Match
from matchers.html import Card, Fact, Page, Plot, Section, Table
from matchers.plots import course
from matchers.recording.figures import Bucket, Disagreement
from matchers.recording.report import Report
from matchers.summary import Summary
from matchers.validation_page import gate_rows, reason_text, verdict

_SHOWN = 5
_PERSONAL = (
    "This report holds personal data: names of people and of their pictures. Its files are readable by their owner "
    "alone. Delete it when it has served."
)


def as_page(found: Report, made: str) -> Page:
    """The report for people."""
    window, summary = found.recorded.window, found.recorded.summary
    return Page(
        title=f"From PKL to pgvector: {window.domain}",
        lede=f"{summary.requests:,} requests that both stores searched, with {summary.comparisons:,} faces compared.",
        made=made,
        good=found.holds,
        verdict=verdict(found.gates),
        personal=_PERSONAL,
        facts=[Fact(name, value, note) for name, value, note in figure_rows(summary)],
        sections=[_gates(found), _course(found.recorded.series), _times(summary), _disagreements(found)],
    )


def figure_rows(summary: Summary) -> list[tuple[str, str, str]]:
    """Name, value and note of the figures."""
    delta = summary.distance_delta
    return [
        ("requests", f"{summary.requests:,}", "searched in both stores"),
        ("same person first", _rate(summary.top1_rate), f"{summary.comparisons:,} faces"),
        ("overlap of the first five", _rate(summary.top5_overlap), ""),
        ("largest difference", "-" if delta is None else f"{delta.max:.1e}", "of one distance"),
        ("pgvector failed", f"{summary.failures:,}", f"of {summary.requests:,} requests"),
        ("disagreements", f"{summary.disagreements:,}", ""),
    ]


def latency_rows(summary: Summary) -> list[tuple[str, ...]]:
    """Store, and milliseconds at the median, 95 % and 99 %."""
    return [
        (store, *(["-"] * 3 if spread is None else [f"{value:.2f}" for value in (spread.p50, spread.p95, spread.p99)]))
        for store, spread in summary.latency_ms.items()
    ]


def reason_rows(summary: Summary) -> list[tuple[str, str]]:
    """Why the stores disagree, and on how many faces."""
    return [(reason_text(name), f"{count:,}") for name, count in summary.reasons.items()]


def lines(matches: Sequence[Match]) -> list[str]:
    """The nearest matches, one a line."""
    told = [
        f"{match.person or '(deleted)'} {match.distance:.6f}" + (f" ({match.source})" if match.source else "")
        for match in matches[:_SHOWN]
    ]
    return told or ["nothing found"]


def _gates(found: Report) -> Section:
    bad = frozenset(index for index, gate in enumerate(found.gates) if not gate.holds)
    since = ""
    if found.gates_since:
        moment = datetime.fromisoformat(found.gates_since)
        since = f" since {moment:%Y-%m-%d %H:%M:%S} UTC, when the domain was last set to dual"
    return Section(
        "Gates",
        f"What must hold before the domain may leave PKL, over what was recorded{since}. The limits are the settings "
        "GATE_*.",
        tables=(Table(("gate", "figure", "limit", "verdict"), gate_rows(found.gates), bad),),
    )


def _course(series: Sequence[Bucket]) -> Section:
    if not series:
        return Section("Course", "Nothing was recorded.")
    times = [bucket.at for bucket in series]
    agreement = {
        "same person first": [_percent(bucket.top1_rate) for bucket in series],
        "overlap of the first five": [_percent(bucket.top5_overlap) for bucket in series],
    }
    milliseconds = {
        "PKL": [bucket.pkl_p95 for bucket in series],
        "pgvector": [bucket.pgvector_p95 for bucket in series],
    }
    requests = {
        "requests": [float(bucket.requests) for bucket in series],
        "pgvector failed": [float(bucket.failures) for bucket in series],
    }
    plots = [
        Plot("Agreement", course(times, agreement, "agreement, %", "Agreement over time", 100), "Of both stores."),
        Plot("Search times", course(times, milliseconds, "ms", "Search times over time"), "95 % took at most so long."),
        Plot("Requests", course(times, requests, "requests", "Requests over time"), "In each stretch of time."),
    ]
    return Section("Course", "", plots=plots)


def _times(summary: Summary) -> Section:
    rows = latency_rows(summary)
    return Section(
        "Search times",
        "Milliseconds of the search of all faces of a picture, in each store.",
        tables=(Table(("store", "p50 ms", "p95 ms", "p99 ms"), rows),),
    )


def _disagreements(found: Report) -> Section:
    summary, shown = found.recorded.summary, found.recorded.disagreements
    if not summary.disagreements:
        return Section("Disagreements", "None: both stores said the same about every face.")
    rest = f" The newest {len(shown):,} are shown." if len(shown) < summary.disagreements else ""
    failures = [f"{one.at:%Y-%m-%d %H:%M:%S}: {one.error}" for one in found.recorded.failures]
    return Section(
        "Disagreements",
        f"Faces about which the stores did not say the same, with the reason.{rest}",
        tables=(Table(("reason", "faces"), reason_rows(summary)),),
        cards=[_card(one) for one in shown],
        folded=[(f"{summary.failures:,} requests that pgvector did not answer", failures)] if failures else [],
    )


def _card(one: Disagreement) -> Card:
    return Card(
        jpeg=None,
        title=f"{one.at:%Y-%m-%d %H:%M:%S} UTC",
        text=reason_text(one.reason),
        lists=(("PKL", lines(one.pkl)), ("pgvector", lines(one.pgvector))),
    )


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _percent(value: float | None) -> float | None:
    return None if value is None else value * 100
