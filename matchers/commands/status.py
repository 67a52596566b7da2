"""``status``: count the faces per store and show differences."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from matchers.base import GalleryFace
from matchers.commands.base import OK, PARTIAL, Commands, add_command, opened_stores, print_json
from matchers.differences import KINDS, by_person, compare_faces
from matchers.errors import StoreUnavailable, UnknownDomain
from matchers.journal import pending
from matchers.names import domain_name
from matchers.service import Stores
from models.settings import Settings


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands,
        "status",
        _status,
        summary="count the faces per store and show differences",
        description="How many faces, pictures and people each store holds, and where they differ: pictures that only "
        "one has,\nor that they hold with another content, person, face or embedding.",
        examples="  python -m matchers status\n  python -m matchers status --domain office --json",
    )
    parser.add_argument("--domain", metavar="D", help="one domain only (default: all)")


def _status(args: argparse.Namespace, settings: Settings) -> int:
    with opened_stores(settings) as stores:
        report = _compare_stores(stores, domain_name(args.domain) if args.domain else None)
    if args.json:
        print_json(report)
    else:
        _print_status(report)
    return PARTIAL if report["pgvector_error"] else OK


def _compare_stores(stores: Stores, only: str | None) -> dict[str, Any]:
    pgvector, error = stores.pgvector, stores.pgvector_error
    names = set(stores.pkl.domains())
    try:
        names.update(pgvector.domains() if pgvector is not None else ())
    except StoreUnavailable as failure:
        pgvector, error = None, str(failure)
    if only is not None and only not in names and not error:
        raise UnknownDomain(f"there is no domain {only!r}; there are: {', '.join(sorted(names)) or 'none'}")
    waiting = pending(stores)
    names.update(waiting)
    domains = []
    for name in sorted(names if only is None else {only}):
        ours = stores.pkl.faces(name)
        theirs = None if pgvector is None else pgvector.faces(name)
        found = () if theirs is None else compare_faces(ours, theirs)
        domains.append(
            {
                "domain": name,
                "pkl": _holding(ours),
                "pgvector": None if theirs is None else _holding(theirs),
                "pending": waiting.get(name, 0),
                "differences": None
                if theirs is None
                else {kind: [one.source for one in found if one.kind == kind] for kind in KINDS},
                "by_person": None if theirs is None else by_person(found),
            }
        )
    return {"domains": domains, "pgvector_error": error}


def _holding(faces: Sequence[GalleryFace]) -> dict[str, int]:
    return {
        "faces": len(faces),
        "pictures": len({face.source for face in faces}),
        "people": len({face.person for face in faces}),
    }


def _print_status(report: dict[str, Any]) -> None:
    table = Table("domain", "store", "faces", "pictures", "people")
    for domain in report["domains"]:
        for store in ("pkl", "pgvector"):
            if domain[store] is not None:
                table.add_row(escape(domain["domain"]), store, *map(str, domain[store].values()))
    console = Console()
    if report["domains"]:
        console.print(table)
    elif report["pgvector_error"]:
        console.print("The PKL galleries hold no domain.")
    else:
        console.print("There is no domain yet. Fill one with `python -m matchers sync --domain D --images DIR`.")
    for domain in report["domains"]:
        _print_differences(domain)
    if report["pgvector_error"]:
        print(f"pgvector does not answer: {report['pgvector_error']}")


def _print_differences(report: dict[str, Any]) -> None:
    """The pictures that differ, person by person, and what may be done about them."""
    domain = report["domain"]
    for person, counts in (report["by_person"] or {}).items():
        told = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts.items())
        print(f"{domain}: {person}: {told}")
    for kind, sources in (report["differences"] or {}).items():
        for source in sources:
            print(f"{domain}: {kind.replace('_', ' ')}: {source}")
    if report["pending"]:
        print(f"{domain}: {report['pending']} changes wait for pgvector; a running server, or `repair`, brings them.")
    if report["by_person"] == {} and not report["pending"]:
        print(f"{domain}: both stores hold the same, embeddings included.")
    if report["by_person"]:
        print(
            f"`python -m matchers repair --domain {domain} --direction pkl-to-pgvector` (or pgvector-to-pkl) mends it."
        )
