"""Measure the way from a picture to embeddings: ``python -m runtime profile``, see ``--help``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from models.commandline import fail, finish, whole_number
from models.errors import ModelError, SettingsError
from models.settings import read_settings
from runtime.engine import open_engine
from runtime.errors import ImageError, RuntimeFault
from runtime.profile import profile

BAD_INPUT = 2

_PROFILE = """
Prints how long decoding, detection, alignment and embedding of one picture take, with the models, the provider and the
precision that the settings (or the options below) name, and how many pictures pass in a second.

  python -m runtime profile group.jpg
  python -m runtime profile group.jpg --embedder arcface-int8.onnx --repeat 100
  python -m runtime profile group.jpg --provider openvino --precision bf16 --json
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit status 2 when the picture, a model or a setting is no good."""
    args = _parser().parse_args(arguments)
    chosen = {
        "detector": args.detector,
        "embedder": args.embedder,
        "execution_provider": args.provider,
        "inference_precision": args.precision,
        "inference_threads": args.threads,
    }
    try:
        settings = read_settings(**{name: value for name, value in chosen.items() if value is not None})
        engine = open_engine(settings)
        found = profile(engine, args.picture.read_bytes(), args.repeat, args.parallel)
    except SettingsError as error:
        message = f"a setting is wrong: {error}"
    except OSError as error:
        message = f"{error.filename}: {error.strerror}"
    except (ImageError, ModelError, RuntimeFault) as error:
        message = str(error)
    else:
        print(json.dumps(found.to_dict(), indent=1) if args.json else found.table())
        return 0
    return fail(message, BAD_INPUT, as_json=args.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runtime", description="The way from a picture to embeddings.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "profile",
        help="where the time of one picture goes",
        description=_PROFILE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("picture", type=Path, metavar="PICTURE")
    command.add_argument("--json", action="store_true", help="one JSON object")
    command.add_argument(
        "--repeat",
        type=partial(whole_number, least=1),
        default=30,
        metavar="N",
        help="how often (default: %(default)s)",
    )
    command.add_argument(
        "--parallel",
        type=_count_or_none,
        default=8,
        metavar="N",
        help="pictures at once for the throughput; 0: none (default: 8)",
    )
    command.add_argument("--detector", help="default: DETECTOR")
    command.add_argument("--embedder", help="default: EMBEDDER")
    command.add_argument("--provider", choices=["auto", "cpu", "cuda", "openvino"], help="default: EXECUTION_PROVIDER")
    command.add_argument("--precision", choices=["fp32", "bf16"], help="default: INFERENCE_PRECISION")
    command.add_argument("--threads", type=int, metavar="N", help="default: INFERENCE_THREADS")
    return parser


def _count_or_none(text: str) -> int:
    return 0 if text == "0" else whole_number(text, 1)


if __name__ == "__main__":
    sys.exit(finish(main))
