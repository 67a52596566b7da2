"""``validate``: do PKL and pgvector say the same about a folder of pictures?"""

from __future__ import annotations

import argparse
import os
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
    opened,
    print_json,
    progress_bar,
    progress_bars,
)
from matchers.gates import gates_of
from matchers.html import prepare, write
from matchers.names import domain_name
from matchers.validation import Validation, assess, list_images
from matchers.validation_local import Here, run_here
from matchers.validation_page import as_json, as_page, gate_rows, latency_rows, name_rows, names_note, reason_text
from matchers.validation_remote import run_there
from models.settings import Settings

TOKEN_VARIABLE = "FACE_TOKEN"  # noqa: S105
_EXIT_STATUS = "Exit status: 0 the gates hold, 1 they do not, 2 the validation could not be done."


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands,
        "validate",
        _validate,
        summary="prove that pgvector agrees with PKL, on a folder of pictures",
        description="Search the faces of DIR/<person>/<picture> or DIR/<picture> in PKL, in pgvector and in both, and "
        "write\nOUTDIR/report.html and report.json: agreement, distances, times, names, every disagreement with its "
        "reason.\nWith --url a running server is asked instead; its domain must be in dual. The report holds personal "
        "data.",
        examples="  python -m matchers validate --domain office --images photos --report office-report\n"
        f"  {TOKEN_VARIABLE}=... python -m matchers validate --domain office --images photos --report report \\\n"
        "      --url https://faces.example",
        exit_status=_EXIT_STATUS,
    )
    parser.set_defaults(on_error=BAD_INPUT)
    parser.add_argument("--domain", required=True, metavar="D", help="the domain to search")
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="folder of the pictures")
    parser.add_argument("--report", required=True, type=Path, metavar="OUTDIR", help="folder for the report")
    parser.add_argument("--url", metavar="URL", help="ask this server, not the stores that the settings name")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help=f"file that holds the server's token (or set {TOKEN_VARIABLE})"
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="at most N pictures, spread over the folder")
    parser.add_argument(
        "--leave-one-out",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="for the names, leave out enrolled faces that come from the searched picture itself (default: yes)",
    )
    parser.add_argument(
        "--sizes",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure agreement over the size of the gallery, in scratch galleries (default: yes)",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _validate(args: argparse.Namespace, settings: Settings) -> int:
    domain = domain_name(args.domain)
    images = list_images(args.images, args.limit)
    if args.token_file is not None and args.url is None:
        raise InputError("--token-file is for --url")
    prepare(args.report)
    if args.url is not None:
        with progress_bar("Asking the server") as show:
            answers, context = run_there(
                _address(args.url), _token(args.token_file), domain, images, show, leave_one_out=args.leave_one_out
            )
    else:
        with opened(settings) as (engine, stores), progress_bars() as bar:
            here = Here(engine, stores, settings, domain)
            answers, context = run_here(here, images, bar, leave_one_out=args.leave_one_out, sizes=args.sizes)
    found = assess(answers, context, gates_of(settings))
    data = as_json(found)
    html, _ = write(args.report, as_page(found, datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")), data)
    if args.json:
        print_json(data | {"report": str(html)})
    else:
        _print(found)
        print(f"Report: {html}")
    return OK if found.holds else PARTIAL


def _address(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url!r} is no address; it begins with http:// or https://")
    return url.rstrip("/")


def _token(path: Path | None) -> str:
    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip()
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"the token file {path} cannot be read: {reason}") from error


def _print(found: Validation) -> None:
    console = Console()
    gates = Table("gate", "figure", "limit", "", title=f"Domain {escape(found.domain)}, {found.faces:,} faces")
    for row in gate_rows(found.gates):
        gates.add_row(*row)
    console.print(gates)
    if found.times:
        times = Table("search", "searches", "p50 ms", "p95 ms", "p99 ms")
        for times_row in latency_rows(found):
            times.add_row(*times_row)
        console.print(times)
    if found.names is not None:
        names = Table("names", "right", "wrong", "no name")
        for names_row in name_rows(found):
            names.add_row(*names_row)
        console.print(names)
        print(names_note(found))
    for reason, count in found.summary.reasons.items():
        print(f"{count:,} x {reason_text(reason)}")
    if found.problems:
        print(f"{len(found.problems):,} pictures could not be searched; the report lists them.")
    print("The gates hold." if found.holds else "The gates do not hold.")
