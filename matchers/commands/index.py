"""``index``: make the indexes of large domains now."""

from __future__ import annotations

import argparse

from matchers.commands.base import OK, Commands, add_command, opened_stores, print_json
from models.settings import Settings


def add(commands: Commands) -> None:
    """Describe the command."""
    add_command(
        commands,
        "index",
        _index,
        summary="make the indexes that large domains lack in PostgreSQL",
        description="Domains of more than 20,000 faces are searched through an index. The server makes it in the "
        "background once a\ndomain has grown so large; this command does it now, for galleries that were filled "
        "without a server.\nSearches go on meanwhile, exact but slower. 100,000 faces take seconds on two cores, "
        "a million minutes.",
        examples="  python -m matchers index\n  python -m matchers index --json",
    )


def _index(args: argparse.Namespace, settings: Settings) -> int:
    with opened_stores(settings) as stores:
        pgvector = stores.needed_pgvector()
        built = pgvector.build_indexes()
        indexed = [domain for domain in pgvector.domains() if pgvector.indexed(domain)]
    if args.json:
        print_json({"built": built, "indexed": indexed})
    elif built:
        print(f"Indexed: {', '.join(built)}.")
    else:
        print("No domain lacks an index.")
    return OK
