"""``search``: name the people in a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from matchers.answer import analyze_answer
from matchers.breaker import CircuitBreaker
from matchers.commands.base import OK, PARTIAL, Commands, InputError, add_command, opened, print_json
from matchers.dual import Searcher
from matchers.languages import Languages
from matchers.names import domain_name
from matchers.preferences import domain_threshold
from models.settings import Mode, Settings


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands,
        "search",
        _search,
        summary="name the people in a picture",
        description="Find the faces of a picture and the people whom they resemble most. --json prints what POST "
        "/analyze answers.",
        examples="  python -m matchers search --domain office group.jpg\n"
        "  python -m matchers search --domain office --mode pkl_only --json group.jpg",
    )
    parser.add_argument("--domain", required=True, metavar="D", help="the domain to search")
    parser.add_argument("--mode", choices=get_args(Mode), help="where to search (default: the mode of the domain)")
    parser.add_argument(
        "--language",
        default="english",
        help="language of the description, such as german or sr-Cyrl (default: english)",
    )
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="JPEG, PNG, WebP, BMP or TIFF")


def _search(args: argparse.Namespace, settings: Settings) -> int:
    domain = domain_name(args.domain)
    language = Languages().find(args.language)
    try:
        data = args.picture.read_bytes()
    except OSError as error:
        raise InputError(f"{args.picture} cannot be read: {error.strerror}.") from error
    with opened(settings) as (engine, stores):
        analysis = engine.analyze(data)
        searcher = Searcher(stores.pkl, stores.pgvector, CircuitBreaker(), settings.pgvector_timeout)
        threshold = domain_threshold(settings, engine.embedder_card, domain)
        mode = args.mode or settings.default_mode
        outcome = searcher.search(analysis.embeddings, domain, mode, settings.top_k, threshold)
    answer = analyze_answer(
        analysis,
        outcome,
        domain=domain,
        language=language,
        language_name=args.language,
        threshold=threshold,
        top_k=settings.top_k,
    )
    if args.json:
        print_json(answer)
    else:
        _print_answer(answer)
    return PARTIAL if "failed" in outcome.mode else OK


def _print_answer(answer: dict[str, Any]) -> None:
    table = Table("face", "person", "distance", "confidence", "nearest in PKL", "nearest in pgvector")
    for number, face in enumerate(answer["faces"], start=1):
        table.add_row(
            str(number),
            escape(face["person"] or "-"),
            "-" if face["distance"] is None else f"{face['distance']:.4f}",
            f"{face['confidence']:.2f}",
            *(_nearest(face[key]) for key in ("pkl_results", "pgvector_results")),
        )
    console = Console()
    console.print(escape(answer["description"]))
    if answer["faces"]:
        console.print(table)
    console.print(f"mode: {answer['mode']}")


def _nearest(results: list[dict[str, Any]]) -> str:
    return escape(f"{results[0]['person']} {results[0]['distance']:.4f}") if results else "-"
