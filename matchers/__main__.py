"""Fill, search and compare galleries: ``python -m matchers COMMAND``, see ``--help``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from matchers.commands import (
    demo,
    evaluate,
    exporting,
    importing,
    index,
    mode,
    purge,
    repair,
    report,
    search,
    status,
    sync,
    validate,
)
from matchers.commands.base import BAD_INPUT, EXIT_STATUS, InputError
from matchers.errors import GalleryFileError, InvalidName, MatcherError, NoPgvector, UnknownDomain
from matchers.evaluation import EvaluationError
from matchers.folder import FolderError
from matchers.html import ReportError
from matchers.languages import UnknownLanguage
from matchers.validation import ValidationError
from models.commandline import INTERRUPTED, fail, finish
from models.errors import ModelError, SettingsError
from models.settings import read_settings
from runtime.errors import ImageError, RuntimeFault
from runtime.pairs import PairsError

COMMANDS = (
    sync,
    importing,
    exporting,
    search,
    status,
    repair,
    purge,
    index,
    demo,
    validate,
    evaluate,
    mode,
    report,
)

_WRONG_INPUT = (
    InputError,
    InvalidName,
    FolderError,
    GalleryFileError,
    NoPgvector,
    UnknownDomain,
    UnknownLanguage,
    ImageError,
    ModelError,
    PairsError,
    EvaluationError,
    ValidationError,
    ReportError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status says how it went (see ``--help``)."""
    args = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        exit_status: int = args.run(args, read_settings())
    except _WRONG_INPUT as error:
        return _fail(args, str(error), BAD_INPUT)
    except SettingsError as error:
        return _fail(args, f"a setting is wrong: {error}", BAD_INPUT)
    except (MatcherError, RuntimeFault) as error:
        return _fail(args, str(error), args.on_error)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(args, f"{error.filename or 'input or output'}: {error.strerror}", args.on_error)
    except KeyboardInterrupt:
        return _fail(args, "stopped; run the same command again to go on", INTERRUPTED)
    return exit_status


def _fail(args: argparse.Namespace, message: str, exit_status: int) -> int:
    return fail(message, exit_status, as_json=args.json, said=f"matchers: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m matchers",
        description="Fill, search and compare the galleries, in PKL files and in PostgreSQL/pgvector.",
        epilog=(
            "A domain is a gallery of its own, for example a country or a customer. Settings come from the\n"
            "environment and from .env: DATA_DIR, MODELS_DIR, DATABASE_URL, DETECTOR, EMBEDDER, ...\n\n"
            "  python -m matchers sync --domain office --images photos   # photos/amy/1.jpg, photos/bob/1.jpg, ...\n"
            "  python -m matchers search --domain office group.jpg\n"
            "  python -m matchers status\n\n" + EXIT_STATUS
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(finish(main))
