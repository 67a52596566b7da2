"""``sync``: bring a folder of pictures into both stores."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from matchers.commands.base import OK, PARTIAL, Commands, add_command, opened, print_json, progress_bar
from matchers.folder import FolderError
from matchers.names import domain_name
from matchers.sync import SyncReport, sync_folder
from models.settings import Settings


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands,
        "sync",
        _sync,
        summary="bring a folder of pictures into both stores",
        description="Bring DIR/<person>/<picture> into both stores. Only pictures with new content are read by the "
        "models;\npictures that are gone from DIR leave the stores. A picture with no face or with several faces is "
        "left out\nand listed.",
        examples="  python -m matchers sync --domain office --images photos",
    )
    parser.add_argument("--domain", required=True, metavar="D", help="the domain to fill; made when it is new")
    parser.add_argument(
        "--images", required=True, type=Path, metavar="DIR", help="folder with one subfolder per person"
    )
    parser.add_argument("--allow-empty", action="store_true", help="let a DIR without pictures empty the domain")


def _sync(args: argparse.Namespace, settings: Settings) -> int:
    domain_name(args.domain)
    if not args.images.is_dir():
        raise FolderError(f"{args.images} is not a folder. Name the folder that holds one subfolder per person.")
    with opened(settings) as (engine, stores), progress_bar("Reading pictures") as show:
        report = sync_folder(
            engine,
            stores,
            args.domain,
            args.images,
            show,
            allow_empty=args.allow_empty,
            keep_thumbnails=settings.keep_thumbnails,
        )
    if args.json:
        print_json(asdict(report) | {"complete": report.complete})
    else:
        _print_sync(report)
    return OK if report.complete else PARTIAL


def _print_sync(report: SyncReport) -> None:
    console = Console()
    table = Table("store", "new", "changed", "removed", "unchanged", title=f"Domain {escape(report.domain)}")
    for name, store in report.stores.items():
        counts = (store.new, store.changed, store.removed, store.unchanged)
        table.add_row(name, *(("-",) * 4 if store.error and not any(counts) else map(str, counts)))
    console.print(table)
    console.print(f"{report.pictures} pictures, {report.embedded} read by the models, {report.reused} copied.")
    if report.kept:
        print(f"{report.kept} pictures that were enrolled through the API are left alone.")
    if report.problems:
        print(f"{len(report.problems)} left out:")
        for problem in report.problems:
            print(f"  {problem.source}: {problem.reason}")
    for name, store in report.stores.items():
        if store.error:
            print(f"{name} is not up to date: {store.error}")
