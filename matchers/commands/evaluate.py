"""``evaluate``: how well do the models tell people apart?"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from matchers.commands.base import (
    OK,
    PARTIAL,
    Commands,
    InputError,
    add_command,
    opened,
    print_json,
    progress_bar,
    require_domain,
)
from matchers.evaluation import Evaluation, Plan, evaluate
from matchers.evaluation_page import as_json, as_page, identification_rows, verification_rows
from matchers.html import prepare, write
from matchers.names import domain_name
from matchers.preferences import default_threshold, domain_threshold, open_preferences
from models.settings import Settings
from runtime.engine import FaceEngine, open_engine

_EXIT_STATUS = (
    "Exit status: 0 measured, 1 the pictures are too few for the threshold that was asked for, or it could not be\n"
    "written, 2 wrong input."
)


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands,
        "evaluate",
        _evaluate,
        summary="measure how well the models tell people apart",
        description="Compare pictures of which it is known who they show, as the protocol of Labeled Faces in the Wild "
        "(LFW)\nhas it, and write OUTDIR/report.html and report.json. Pictures lie as Name/Name_0001.jpg or flat as\n"
        "Name_0001.jpg; for --identification and --fmr any file name in a person's folder will do. Of several faces "
        "the\nlargest near the middle counts; tight crops get a border when no face is found in them.",
        examples="  python -m matchers evaluate --images lfw --pairs pairs.txt --report lfw-report\n"
        "  python -m matchers evaluate --images photos --identification --report photos-report\n"
        "  python -m matchers evaluate --images photos --fmr 1e-4 --domain office --write-threshold --report r",
        exit_status=_EXIT_STATUS,
    )
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="folder of the pictures")
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="LFW pairs file: verification in folds")
    parser.add_argument("--report", required=True, type=Path, metavar="OUTDIR", help="folder for the report")
    parser.add_argument(
        "--identification", action="store_true", help="search in galleries, with people who are not enrolled"
    )
    parser.add_argument(
        "--fmr", type=_rate, metavar="RATE", help="recommend a threshold for this false-match rate, such as 1e-3"
    )
    parser.add_argument("--domain", metavar="D", help="take the threshold of this domain as the service's")
    parser.add_argument(
        "--write-threshold", action="store_true", help="set the threshold of --domain to the one for --fmr"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random splits (default: 0)")


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1, such as 1e-3")
    return rate


def _evaluate(args: argparse.Namespace, settings: Settings) -> int:
    if args.pairs is None and args.fmr is None and not args.identification:
        raise InputError("say what to measure: --pairs FILE, --identification or --fmr RATE")
    if args.write_threshold and (args.fmr is None or args.domain is None):
        raise InputError("--write-threshold needs --fmr RATE and --domain D")
    if args.seed < 0:
        raise InputError("--seed must not be negative")
    plan = Plan(args.images, args.pairs, args.identification, args.fmr, args.seed)
    prepare(args.report)
    if not args.write_threshold:
        return _run(args, settings, open_engine(settings), plan)
    with opened(settings) as (engine, stores):
        require_domain(stores, domain_name(args.domain))
        return _run(args, settings, engine, plan)


def _run(args: argparse.Namespace, settings: Settings, engine: FaceEngine, plan: Plan) -> int:
    card = engine.embedder_card
    threshold = (
        default_threshold(settings, card)
        if args.domain is None
        else domain_threshold(settings, card, domain_name(args.domain))
    )
    with progress_bar("Reading pictures") as show:
        evaluation = evaluate(engine, plan, threshold, time.perf_counter, show)
    models = f"{engine.detector_card.name} + {card.name}"
    data = as_json(evaluation, models)
    page = as_page(evaluation, models, str(args.images), datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    html, _ = write(args.report, page, data)
    recommended = evaluation.recommendation.threshold if evaluation.recommendation is not None else None
    written = None
    if args.write_threshold and recommended is not None:
        before = open_preferences(settings).set_threshold(args.domain, card, recommended)
        written = {"domain": args.domain, "before": threshold if before is None else before, "after": recommended}
    if args.json:
        print_json(data | {"written": written, "report": str(html)})
    else:
        _print(evaluation, models)
        if written is not None:
            print(
                f"Domain {args.domain}: threshold {written['before']:.4f} -> {recommended:.4f}; servers take it up now."
            )
        print(f"Report: {html}")
    return OK if args.fmr is None or recommended is not None else PARTIAL


def _print(evaluation: Evaluation, models: str) -> None:
    console = Console()
    pictures = evaluation.pictures
    if evaluation.verification is not None:
        _print_rows(console, f"Verification, {models}", verification_rows(evaluation.verification))
    if evaluation.identification is not None:
        _print_rows(console, f"Identification, {models}", identification_rows(evaluation.identification))
    print(
        f"{pictures.read:,} pictures of {pictures.people:,} people at {pictures.per_second:.1f} a second: "
        f"{len(pictures.problems):,} without a usable face, {pictures.several:,} with several, "
        f"{pictures.bordered:,} found with a border, {len(pictures.missing):,} not there."
    )
    if evaluation.recommendation is not None:
        print(evaluation.recommendation.statement())


def _print_rows(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    table = Table("figure", "value", title=title)
    for row in rows:
        table.add_row(*row)
    console.print(table)
