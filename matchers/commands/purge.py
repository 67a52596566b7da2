"""``purge``: take deleted faces out of PostgreSQL's files."""

from __future__ import annotations

import argparse

from matchers.commands.base import OK, Commands, add_command, opened_stores, print_json
from matchers.errors import UnknownDomain
from matchers.names import domain_name
from models.settings import Settings


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands,
        "purge",
        _purge,
        summary="take deleted faces out of PostgreSQL's files",
        description="Write a domain's table anew without the bytes of faces that were deleted. Small domains are "
        "purged with every\ndeletion by themselves; one that is searched through an index (over 20,000 faces) is "
        "purged by this command\nonly: meanwhile its searches wait, and they are slow until the index is made again.",
        examples="  python -m matchers purge --domain office",
    )
    parser.add_argument("--domain", required=True, metavar="D", help="the domain to purge")


def _purge(args: argparse.Namespace, settings: Settings) -> int:
    domain = domain_name(args.domain)
    with opened_stores(settings) as stores:
        pgvector = stores.needed_pgvector()
        if domain not in pgvector.domains():
            raise UnknownDomain(f"pgvector holds no domain {domain!r}")
        pgvector.purge(domain, indexed=True)
    if args.json:
        print_json({"domain": domain, "purged": True})
    else:
        print(f"{domain}: what was deleted is out of PostgreSQL's files.")
    return OK
