"""``report``: what the answers of dual mode said, and whether the gates hold."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from matchers.commands.base import (
    BAD_INPUT,
    OK,
    PARTIAL,
    Commands,
    InputError,
    add_command,
    judge_of,
    opened_stores,
    print_json,
    require_domain,
)
from matchers.html import prepare, write
from matchers.names import domain_name
from matchers.recording.page import as_page, figure_rows, latency_rows, lines, reason_rows
from matchers.recording.report import Report, as_json, moment, report
from matchers.validation_page import gate_rows, reason_text, verdict
from models.settings import Settings

_EXIT_STATUS = "Exit status: 0 the gates hold, 1 they do not, 2 there is no report (wrong input, PostgreSQL is away)."


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands,
        "report",
        _report,
        summary="what dual mode has shown so far: agreement, times, failures, gates",
        description="Figures over every request that servers searched in both stores: same person first, overlap of "
        "the\nfirst five, differences of distances, times, failures, and each disagreement with its reason. Nothing "
        "is\nsearched for it.",
        examples="  python -m matchers report --domain office\n"
        "  python -m matchers report --domain office --since 24h --html office-report\n"
        "  python -m matchers report --domain office --json | jq .summary",
        exit_status=_EXIT_STATUS,
    )
    parser.set_defaults(on_error=BAD_INPUT)
    parser.add_argument("--domain", required=True, metavar="D", help="the domain")
    parser.add_argument(
        "--since", type=_moment, metavar="WHEN", help="24h, 7d or ISO 8601 (default: when it was last set to dual)"
    )
    parser.add_argument("--until", type=_moment, metavar="WHEN", help="the same (default: now)")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="disagreements to list (default: 20)")
    parser.add_argument("--html", type=Path, metavar="OUTDIR", help="write report.html and report.json there, too")


def _moment(text: str) -> datetime:
    try:
        return moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _report(args: argparse.Namespace, settings: Settings) -> int:
    domain = domain_name(args.domain)
    if not settings.vector_db_enabled:
        raise InputError("there is one store only, nothing is compared: VECTOR_DB_ENABLED is false")
    if args.html is not None:
        prepare(args.html)
    with opened_stores(settings) as stores:
        judge = judge_of(stores, settings)
        found = report(judge, judge.window(domain, args.since, args.until), max(args.limit, 0))
        if not found.recorded.summary.requests:
            require_domain(stores, domain)
    data = as_json(found)
    if args.html is not None:
        html, _ = write(args.html, as_page(found, datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")), data)
        data["report"] = str(html)
    if args.json:
        print_json(data)
    else:
        _print(found)
        if args.html is not None:
            print(f"Report: {data['report']}")
    return OK if found.holds else PARTIAL


def _print(found: Report) -> None:
    console = Console()
    summary, window = found.recorded.summary, found.recorded.window
    if not summary.requests:
        print(
            f"{window.domain}: nothing is recorded in this time. Requests are while the mode is dual: "
            f"`python -m matchers mode --domain {window.domain} dual`."
        )
    since = found.gates_since[:19] + "Z" if found.gates_since else "the beginning"
    figures = Table("figure", "", "", title=f"Domain {escape(window.domain)}", show_header=False)
    for figure in figure_rows(summary):
        figures.add_row(*figure)
    console.print(figures)
    times = Table("search", "p50 ms", "p95 ms", "p99 ms")
    for times_row in latency_rows(summary):
        times.add_row(*times_row)
    console.print(times)
    gates = Table("gate", "figure", "limit", "", title=f"Gates, since {since}")
    for gates_row in gate_rows(found.gates):
        gates.add_row(*gates_row)
    console.print(gates)
    for reason, count in reason_rows(summary):
        print(f"{count} x {reason}")
    for one in found.recorded.disagreements:
        print(f"{one.at:%Y-%m-%d %H:%M:%S} {reason_text(one.reason)}")
        print(f"    PKL:      {', '.join(lines(one.pkl)[:3])}")
        print(f"    pgvector: {', '.join(lines(one.pgvector)[:3])}")
    for failure in found.recorded.failures:
        print(f"{failure.at:%Y-%m-%d %H:%M:%S} failed: {failure.error}")
    if found.waiting:
        print(f"{found.waiting} more wait on the disk until a server brings them to PostgreSQL.")
    print(verdict(found.gates))
