"""``python -m models``: what models there are, what a file says of itself, and whether the files are sound."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.builtin import BUILT_IN
from models.card import card_or_none, load_card
from models.catalog import load_catalog
from models.commandline import fail, finish
from models.errors import ModelError, SettingsError
from models.settings import read_settings
from models.store import ModelStore, file_sha256, is_intact, recorded_sha256
from models.verify import signature, verify_model

HELP = """\
Look at model files. Nothing is changed and nothing is downloaded.

examples:
  python -m models list                          what the catalog offers and which of it is here
  python -m models show sface                    card, inputs, outputs and sha256 of one model
  python -m models show /path/to/model.onnx
  python -m models verify                        check every model that is here
  python -m models verify sface --json           check one, for scripts

exit status: 0 all is well, 1 verify found something wrong, 2 the command cannot be carried out
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace, Path], int] = options.run
    try:
        return run(options, options.models_dir or read_settings().models_path)
    except (ModelError, SettingsError) as error:
        return fail(str(error), 2, as_json=options.json, said=f"error: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--models-dir", type=Path, help="models folder (default: MODELS_DIR, else DATA_DIR/models)")
    common.add_argument("--json", action="store_true", help="print JSON")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    listing = commands.add_parser("list", parents=[common], help="the catalog, and what of it is here")
    listing.set_defaults(run=_list)
    show = commands.add_parser("show", parents=[common], help="card, inputs, outputs and sha256 of one model")
    show.add_argument("file", help="a name in the models folder, or a path to an .onnx file")
    show.set_defaults(run=_show)
    verify = commands.add_parser("verify", parents=[common], help="check the models that are here")
    verify.add_argument("name", nargs="*", help="which models; default: all that are here")
    verify.set_defaults(run=_verify)
    return parser


def _list(options: argparse.Namespace, folder: Path) -> int:
    rows = list_models(folder)
    if options.json:
        print(json.dumps(rows, ensure_ascii=False))
        return 0
    table = Table(box=None, pad_edge=False)
    for title in ("name", "role", "here", "size", "threshold", "packs", "licence", "about"):
        table.add_column(title, justify="right" if title in {"size", "threshold"} else "left")
    for row in rows:
        table.add_row(
            row["name"],
            row["role"],
            row["state"],
            _size(row["bytes"]),
            "" if row["threshold"] is None else f"{row['threshold']:.2f}",
            ", ".join(row["packs"]),
            row["licence"],
            row["about"],
        )
    _console().print(table)
    return 0


def list_models(folder: Path) -> list[dict[str, Any]]:
    """One row for each catalog entry, each built-in model, and each other model file of ``folder``, ready for JSON.

    ``state`` is ``yes``, ``no``, ``damaged``, ``unverified`` (no sha256 beside it) or ``built in`` (a library ships it,
    there is no file); ``bytes`` is None and ``threshold`` the catalog's when it is not here.
    """
    rows = []
    store = ModelStore(folder)
    entries = load_catalog().entries
    for entry in entries:
        path = folder / entry.file
        card = card_or_none(path) if entry.card is not None else None
        shown = card or entry.card
        rows.append(
            {
                "name": entry.name,
                "role": entry.role,
                "state": _state(path),
                "bytes": path.stat().st_size if path.is_file() else None,
                "threshold": shown.threshold if shown else None,
                "packs": list(entry.packs),
                "licence": entry.licence,
                "about": entry.about,
                "path": str(path),
            }
        )
    rows += [
        {
            "name": card.name,
            "role": "detector",
            "state": "built in",
            "bytes": None,
            "threshold": card.threshold,
            "packs": [],
            "licence": card.licence,
            "about": card.notes,
            "path": "",
        }
        for card in BUILT_IN.values()
    ]
    for name in sorted(set(store.names()) - {Path(entry.file).stem for entry in entries}):
        path = store.path(name)
        card = card_or_none(path)
        rows.append(
            {
                "name": name,
                "role": {"embedding": "embedder", "detection": "detector"}.get(card.task if card else "", "unknown"),
                "state": _state(path),
                "bytes": path.stat().st_size,
                "threshold": card.threshold if card else None,
                "packs": [],
                "licence": card.licence if card else "",
                "about": card.notes if card else "no model card",
                "path": str(path),
            }
        )
    return rows


def _show(options: argparse.Namespace, folder: Path) -> int:
    path = None if options.file in BUILT_IN else ModelStore(folder).resolve(options.file)
    card = load_card(path) if path else BUILT_IN[options.file]
    inputs, outputs = signature(path) if path else ([], [])
    answer = {
        "path": str(path or ""),
        "bytes": path.stat().st_size if path else None,
        "sha256": file_sha256(path) if path else "",
        "inputs": inputs,
        "outputs": outputs,
        "card": asdict(card),
    }
    if options.json:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("file", f"{path} ({_size(path.stat().st_size)})" if path else "built in")
    table.add_row("sha256", str(answer["sha256"]))
    for title, values in (("input", inputs), ("output", outputs)):
        for value in values:
            table.add_row(title, f"{value['name']}  {value['type']}  {value['shape']}")
    for key, value in asdict(card).items():
        if key == "measured":
            for name, part in value.items():
                table.add_row(f"measured {name}", _rounded(part))
        else:
            table.add_row(key, _plain(value))
    _console().print(table)
    return 0


def _verify(options: argparse.Namespace, folder: Path) -> int:
    store = ModelStore(folder)
    names = options.name or store.names()
    if not names:
        raise ModelError(f"There is no model in {folder}. Get the default ones with `python -m convert fetch`.")
    sound = True
    results = []
    for name in names:
        path = store.path(name)
        card = card_or_none(path)
        problems = verify_model(path)
        sound = sound and not problems
        parity = dict(card.parity) if card else {}
        results.append({"name": name, "path": str(path), "problems": problems, "parity": parity})
        if not options.json:
            print(f"{'FAILED' if problems else 'ok':7}{name}{_figures(parity)}")
            print("".join(f"       - {problem}\n" for problem in problems), end="")
    if options.json:
        print(json.dumps({"status": "success" if sound else "error", "models": results}, ensure_ascii=False))
    return 0 if sound else 1


def _state(path: Path) -> str:
    if not path.is_file():
        return "no"
    if recorded_sha256(path) is None:
        return "unverified"
    return "yes" if is_intact(path) else "damaged"


def _size(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    if isinstance(value, tuple):
        return " ".join(str(part) for part in value)
    return "" if value is None else str(value)


def _rounded(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _figures(parity: Mapping[str, float]) -> str:
    if "cosine_mean" in parity:
        return f"  (against fp32: cosine {parity['cosine_mean']:.4f} mean, {parity['cosine_min']:.4f} least)"
    if "cosine_min" not in parity:
        return ""
    difference = parity.get("max_abs_diff")
    tail = "" if difference is None else f", largest difference {difference:.2g}"
    return f"  (against its source: cosine {parity['cosine_min']:.9f}{tail})"


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200
    return console


if __name__ == "__main__":
    sys.exit(finish(main))
