"""``export``: write a domain as a gallery file that DeepFace reads."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from matchers.commands.base import (
    OK,
    Commands,
    Galleries,
    InputError,
    add_command,
    opened_galleries,
    print_json,
    progress_bar,
)
from matchers.exporting import STORES, SUFFIXES, ExportReport, export_faces, faces_to_export
from matchers.gallery_names import deepface_file
from matchers.names import domain_name
from models.settings import Settings


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands,
        "export",
        _export,
        summary="write a domain as a gallery file that DeepFace reads",
        description="Write every face of a domain into a gallery file of DeepFace: .pkl for DeepFace up to 0.0.101, "
        ".npz for later\nones. In a folder it gets DeepFace's own file name, and the folder is taken for the one given "
        "to DeepFace.find\n(db_path): DeepFace then takes over every face whose picture lies there unchanged.",
        examples="  python -m matchers export --domain slovenia slovenia.pkl           # for refresh_database=False\n"
        "  python -m matchers export --domain slovenia /srv/faces/slovenia    # the folder of pictures\n"
        "  python -m matchers export --domain slovenia --format npz /srv/faces/slovenia",
    )
    parser.add_argument("--domain", required=True, metavar="D", help="the domain to write")
    parser.add_argument("target", metavar="FILE", help="a file that ends in .pkl or .npz, or a folder")
    parser.add_argument("--format", choices=[suffix[1:] for suffix in SUFFIXES], help="for a folder (default: pkl)")
    parser.add_argument("--store", choices=STORES, default="pgvector", help="the store to read (default: pgvector)")
    parser.add_argument(
        "--images",
        default="",
        metavar="DIR",
        help="the folder of pictures, written as you give it to DeepFace.find (default: FILE, if that is a folder)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")


def _export(args: argparse.Namespace, settings: Settings) -> int:
    domain_name(args.domain)
    with opened_galleries(settings) as there:
        path = _path(args, there)
        images = args.images or (args.target if Path(args.target).is_dir() else "")
        if images and not Path(images).is_dir():
            raise InputError(f"{images} is no folder of pictures")
        faces = faces_to_export(there.stores, args.domain, args.store)
        with progress_bar(f"Writing {path.name}") as show:
            report = export_faces(args.domain, args.store, faces, path, images=images, notify=show)
    if args.json:
        print_json(asdict(report))
    else:
        _print_export(report, images)
    return OK


def _path(args: argparse.Namespace, there: Galleries) -> Path:
    path = Path(args.target)
    if path.is_dir():
        path /= deepface_file(there.embedder, there.detector, f".{args.format or 'pkl'}")
    elif args.format and path.suffix != f".{args.format}":
        raise InputError(f"{path} does not end in .{args.format}")
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path} is no folder and does not end in .pkl (DeepFace up to 0.0.101) or .npz (later ones)")
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {path.parent}")
    if path.exists() and not args.overwrite:
        raise InputError(f"{path} is there already; --overwrite replaces it")
    return path


def _print_export(report: ExportReport, images: str) -> None:
    print(f"{report.file}: {report.faces:,} faces of {report.people:,} people, from {report.store}.")
    if not images:
        print("Its identities are relative: search with DeepFace.find(..., refresh_database=False).")
    elif report.elsewhere:
        print(
            f"{report.elsewhere:,} of them have no picture in {images}: DeepFace keeps those only with "
            "refresh_database=False."
        )
