"""What every command line does alike: where its output goes, and how it ends."""

from __future__ import annotations

import argparse
import codecs
import io
import json
import os
import sys
from collections.abc import Callable

INTERRUPTED = 130
READER_GONE = 1
"""As rich ends a program that wrote to a pipe which nobody reads any more."""

_ESCAPED = "face-service.escaped"


def finish(main: Callable[[], int]) -> int:
    """Run a command to the last byte of its output; returns the exit status.

    Letters that the terminal cannot show are written as ``\\uXXXX``, which keeps JSON what it is. A reader that has
    seen enough (``| head``) and Ctrl-C end the command without a word.
    """
    codecs.register_error(_ESCAPED, _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPED)
    try:
        try:
            status = main()
        finally:
            _flush()
    except BrokenPipeError:
        look_away()
        return READER_GONE
    except OSError as error:
        look_away()
        print(f"{error.filename or 'input or output'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def fail(message: str, status: int, *, as_json: bool, said: str | None = None) -> int:
    """Say why a command failed; returns ``status``.

    With ``as_json`` standard output gets one object, as it does for a success, so that a script need not read English.

    Args:
        message: why, for scripts.
        said: the line for people, on standard error (default: ``message``).
    """
    if as_json:
        print(json.dumps({"status": "error", "message": message}, ensure_ascii=False))
    print(said or message, file=sys.stderr)
    return status


def look_away() -> None:
    """Let what is left for standard output, which takes nothing more, go nowhere.

    Python flushes it once more at its end, and would complain again, with an exit status of its own.
    """
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def whole_number(text: str, least: int) -> int:
    """What an option says, for ``type`` of argparse.

    Raises:
        argparse.ArgumentTypeError: it is no whole number, or less than ``least``.
    """
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _flush() -> None:
    # None where standard output is closed.
    if sys.stdout is not None:
        sys.stdout.flush()
