"""``repair``: make one store like the other."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from matchers.commands.base import OK, Commands, add_command, opened_stores, print_json
from matchers.differences import DIRECTIONS, Repair, repair
from matchers.names import domain_name
from models.settings import Settings


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands,
        "repair",
        _repair,
        summary="make one store like the other",
        description="Copy what differs from one store to the other, and take out of it what the first one does not "
        "have. `status`\nlists what differs. A PKL gallery that cannot be read any more is written anew from pgvector.",
        examples="  python -m matchers repair --domain office --direction pkl-to-pgvector --dry-run\n"
        "  python -m matchers repair --domain office --direction pgvector-to-pkl",
    )
    parser.add_argument("--domain", required=True, metavar="D", help="the domain to mend")
    parser.add_argument(
        "--direction",
        required=True,
        choices=[direction.replace("_", "-") for direction in DIRECTIONS],
        help="from the store that is right to the one that is mended",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _repair(args: argparse.Namespace, settings: Settings) -> int:
    domain = domain_name(args.domain)
    with opened_stores(settings) as stores:
        report = repair(stores, domain, args.direction.replace("-", "_"), dry_run=args.dry_run)
    if args.json:
        print_json(asdict(report))
    else:
        _print_repair(report)
    return OK


def _print_repair(report: Repair) -> None:
    target = report.direction.rpartition("_")[2]
    would = "would be " if report.dry_run else ""
    for verb, sources in (("copied to", report.copied), ("removed from", report.removed)):
        for source in sources:
            print(f"{report.domain}: {would}{verb} {target}: {source}")
    print(f"{report.domain}: {len(report.copied)} pictures {would}copied, {len(report.removed)} {would}removed.")
