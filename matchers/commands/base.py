"""What the commands share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from matchers.audit import open_audit
from matchers.errors import MatcherError, UnknownDomain
from matchers.gates import gates_of
from matchers.recording.report import Judge, count_differences
from matchers.service import Stores, open_stores
from models.card import ModelCard
from models.settings import Settings
from models.store import ModelStore
from runtime.engine import FaceEngine, open_engine

OK, PARTIAL, BAD_INPUT = 0, 1, 2

EXIT_STATUS = "Exit status: 0 done, 1 a store could not be reached or brought up to date, 2 wrong input."

Commands = Any
"""What ``ArgumentParser.add_subparsers`` returns; argparse keeps its type private."""

Run = Callable[[argparse.Namespace, Settings], int]


class InputError(MatcherError):
    """What was given on the command line cannot be used."""


def add_command(
    commands: Commands,
    name: str,
    run: Run,
    *,
    summary: str,
    description: str,
    examples: str,
    exit_status: str = EXIT_STATUS,
) -> argparse.ArgumentParser:
    """The parser of a new command, with ``--json`` and a help that ends in examples and exit status."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"Examples:\n{examples}\n\n{exit_status}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for scripts")
    parser.set_defaults(run=run, on_error=PARTIAL)
    return parser


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[FaceEngine, Stores]]:
    """The models and the stores that the settings name."""
    engine = open_engine(settings)
    with open_stores(settings, engine.embedder_card, engine.detector_card.name) as stores:
        yield engine, stores


@dataclass(frozen=True, slots=True)
class Galleries:
    """The stores, and what the models that fill them are."""

    stores: Stores
    embedder: ModelCard
    detector: str


@contextmanager
def opened_galleries(settings: Settings) -> Iterator[Galleries]:
    """The stores with the cards of the models, which are not loaded."""
    models = ModelStore(settings.models_path)
    embedder, detector = models.find(settings.embedder, "embedding"), models.find(settings.detector, "detection")
    with open_stores(settings, embedder.card, detector.card.name) as stores:
        yield Galleries(stores, embedder.card, detector.card.name)


@contextmanager
def opened_stores(settings: Settings) -> Iterator[Stores]:
    """The stores alone, for commands that look at no picture."""
    with opened_galleries(settings) as galleries:
        yield galleries.stores


def require_domain(stores: Stores, domain: str) -> None:
    """Make sure that a store holds the domain.

    Raises:
        UnknownDomain: none does.
        StoreUnavailable: the PKL galleries do not, and pgvector does not answer.
    """
    try:
        stores.require(domain)
    except UnknownDomain as error:
        raise UnknownDomain(f"{error}; `python -m matchers status` lists those that there are") from error


def judge_of(stores: Stores, settings: Settings) -> Judge:
    """Looks at the gates that the settings ask for."""
    space = ModelStore(settings.models_path).find(settings.embedder, "embedding").card.gallery_space
    return Judge(stores, open_audit(settings), space, gates_of(settings), partial(count_differences, stores))


Progress = Callable[[int, int], None]
"""To be called with the steps done and the steps to do."""


@contextmanager
def progress_bars() -> Iterator[Callable[[str], Progress]]:
    """Bars on standard error, one below the other; call what it gives with the text of each.

    A terminal shows a bar at once. In a log there is none before its first step: an error stays alone there.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = Bars(*columns, console=Console(stderr=True))

    def add(text: str) -> Progress:
        task: list[TaskID] = []

        def step(done: int, total: int | None) -> None:
            if not task:
                bars.start()
                task.append(bars.add_task(text, total=None))
            bars.update(task[0], completed=done, total=total)

        if bars.console.is_terminal:
            step(0, None)
        return step

    try:
        yield add
    finally:
        if bars.live.is_started:
            bars.stop()


@contextmanager
def progress_bar(text: str) -> Iterator[Progress]:
    """One bar on standard error."""
    with progress_bars() as add:
        yield add(text)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    print(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False))
