"""``demo``: make a domain from a picture that comes along."""

from __future__ import annotations

import argparse
import shlex

from matchers.commands.base import OK, PARTIAL, Commands, InputError, add_command, opened, print_json
from matchers.demo import DOMAIN, demo_picture, ensure_demo
from matchers.journal import pending
from matchers.names import domain_name
from models.settings import Settings


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands,
        "demo",
        _demo,
        summary=f"make the domain {DOMAIN!r} from a picture that comes along",
        description="Enrol the six people of a picture that the package insightface ships as guest-1 to guest-6, from "
        "left to\nright. Nothing happens when the domain is there already.",
        examples="  python -m matchers demo",
    )
    parser.add_argument("--domain", default=DOMAIN, metavar="D", help=f"name of the domain (default: {DOMAIN})")


def _demo(args: argparse.Namespace, settings: Settings) -> int:
    domain = domain_name(args.domain)
    path = demo_picture()
    if path is None:
        raise InputError("the demo picture is not installed; get it with `pip install --no-deps 'insightface>=2.1,<3'`")
    with opened(settings) as (engine, stores):
        made = ensure_demo(engine, stores, domain, again=True, keep_thumbnails=settings.keep_thumbnails)
        late = bool(pending(stores).get(domain)) or bool(stores.pgvector_error)
    if args.json:
        print_json({"domain": domain, "made": made, "picture": str(path)})
    else:
        print(f"The domain {domain} {'is made' if made else 'was there already'}. Try it:")
        print(f"  python -m matchers search --domain {domain} {shlex.quote(str(path))}")
    return PARTIAL if late else OK
