"""``import``: bring a gallery file of DeepFace into both stores."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from matchers.commands.base import (
    OK,
    PARTIAL,
    Commands,
    InputError,
    add_command,
    opened_galleries,
    print_json,
    progress_bars,
)
from matchers.errors import GalleryError, GalleryMismatch
from matchers.files import open_regular
from matchers.gallery_names import TRAITS
from matchers.importing import MAX_BYTES, GalleryFile, ImportReport, import_gallery
from matchers.names import domain_name
from models.settings import Settings

# A gallery may hold thousands of pictures without a face; --json lists all.
_SHOWN = 20


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands,
        "import",
        _import,
        summary="bring a gallery file of DeepFace into both stores",
        description="Bring the faces of a gallery that DeepFace wrote (.pkl, .npz, .parquet, .feather) into both "
        "stores. Nothing in\nthe file is run. Its name tells which model and detector made it; what does not fit "
        "EMBEDDER and DETECTOR\nis refused, with what to do. Faces that a store has already are left alone: run it as "
        "often as you like.\nWhat only the stores hold stays.",
        examples="  python -m matchers import --domain slovenia \\\n"
        "      /srv/faces/slovenia/ds_model_arcface_detector_opencv_aligned_normalization_base_expand_0.pkl\n"
        "  python -m matchers import --domain slovenia --dry-run representations_arcface.pkl\n"
        "  python -m matchers import --domain slovenia --accept detector gallery.npz",
    )
    parser.add_argument("--domain", required=True, metavar="D", help="the domain to fill; made when it is new")
    parser.add_argument("file", type=Path, metavar="FILE", help="the gallery file")
    parser.add_argument(
        "--accept",
        action="append",
        choices=TRAITS,
        default=[],
        help="import although this is another one than in use here; may be given several times",
    )
    parser.add_argument(
        "--root",
        action="append",
        default=[],
        metavar="FOLDER",
        help="folder above the people, as the file has it; may be given several times (default: the folder that all "
        "its pictures share)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only read, check and count; nothing is written")


def _import(args: argparse.Namespace, settings: Settings) -> int:
    domain_name(args.domain)
    path: Path = args.file
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_regular(path, MAX_BYTES))
        except GalleryError as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        there = stack.enter_context(opened_galleries(settings))
        bars = stack.enter_context(progress_bars())
        try:
            report = import_gallery(
                there.stores,
                there.embedder,
                there.detector,
                args.domain,
                GalleryFile(file, path.name, path.absolute().parent.name),
                stage=bars,
                accept=args.accept,
                roots=args.root,
                dry_run=args.dry_run,
            )
        except GalleryMismatch as error:
            flags = " ".join(f"--accept {trait}" for trait in error.traits)
            raise InputError(f"{path}: {error}{f' To import it all the same: {flags}' if flags else ''}") from error
    if args.json:
        print_json(asdict(report) | {"complete": report.complete})
    else:
        _print_import(report)
    return OK if report.complete else PARTIAL


def _print_import(report: ImportReport) -> None:
    verb = "would be " if report.dry_run else ""
    title = f"Domain {escape(report.domain)}, pictures"
    table = Table("store", f"{verb}new", f"{verb}changed", "unchanged", title=title)
    for name, store in report.stores.items():
        counts = (store.new, store.changed, store.unchanged)
        table.add_row(name, *(("-",) * 3 if store.error else map(str, counts)))
    Console().print(table)
    copies = f", {report.copies:,} repeated records left out" if report.copies else ""
    print(f"{report.file}: {report.faces:,} faces of {report.people:,} people{copies}.")
    for warning in report.warnings:
        print(f"Note: {warning}")
    if report.skipped:
        print(f"{len(report.skipped):,} records left out:")
        for problem in report.skipped[:_SHOWN]:
            print(f"  {problem.source}: {problem.reason}")
        if len(report.skipped) > _SHOWN:
            print(f"  ... and {len(report.skipped) - _SHOWN:,} more; --json lists all.")
    for name, store in report.stores.items():
        if store.error:
            print(f"{name} is not up to date: {store.error}")
