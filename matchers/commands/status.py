"""``status``: count the faces per store and show differences."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from matchers.base import GalleryStore
from matchers.commands.base import OK, PARTIAL, Commands, add_command, print_json
from matchers.errors import StoreUnavailable, UnknownDomain
from matchers.names import domain_name
from matchers.service import Stores, open_stores
from models.card import load_card
from models.settings import Settings
from models.store import ModelStore


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands,
        "status",
        _status,
        summary="count the faces per store and show differences",
        description="How many faces, pictures and people each store holds, and which pictures only one of them has.",
        examples="  python -m matchers status\n  python -m matchers status --domain office --json",
    )
    parser.add_argument("--domain", metavar="D", help="one domain only (default: all)")


def _status(args: argparse.Namespace, settings: Settings) -> int:
    models = ModelStore(settings.models_path)
    embedder, detector = (load_card(models.resolve(name)) for name in (settings.embedder, settings.detector))
    with open_stores(settings, embedder, detector.name) as stores:
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
    domains = []
    for name in sorted(names if only is None else {only}):
        ours = stores.pkl.inventory(name)
        theirs = None if pgvector is None else pgvector.inventory(name)
        domains.append(
            {
                "domain": name,
                "pkl": _holding(stores.pkl, name, ours),
                "pgvector": None if pgvector is None or theirs is None else _holding(pgvector, name, theirs),
                "differences": None if theirs is None else _differences(ours, theirs),
            }
        )
    return {"domains": domains, "pgvector_error": error}


def _holding(store: GalleryStore, domain: str, inventory: Mapping[str, str]) -> dict[str, int]:
    people = {source.partition("/")[0] for source in inventory}
    return {"faces": store.count(domain), "pictures": len(inventory), "people": len(people)}


def _differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, list[str]]:
    return {
        "only_in_pkl": sorted(ours.keys() - theirs.keys()),
        "only_in_pgvector": sorted(theirs.keys() - ours.keys()),
        "other_content": sorted(source for source in ours.keys() & theirs.keys() if ours[source] != theirs[source]),
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
    else:
        console.print("There is no domain yet. Fill one with `python -m matchers sync --domain D --images DIR`.")
    for domain in report["domains"]:
        for kind, sources in (domain["differences"] or {}).items():
            for source in sources:
                print(f"{domain['domain']}: {kind.replace('_', ' ')}: {source}")
    if report["pgvector_error"]:
        print(f"pgvector does not answer: {report['pgvector_error']}")
