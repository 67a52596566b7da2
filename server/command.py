"""What ``python -m server`` does: check everything, then listen."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from matchers.errors import MatcherError
from models.errors import ModelError, SettingsError
from models.settings import Settings, read_settings
from runtime.errors import RuntimeFault
from server.local import is_loopback
from server.logs import configure_logging
from server.token_file import add_token
from server.tokens import RIGHTS, TokenFileError, new_token, parse_tokens, tokens_asked_for

_USAGE_ERROR = 2
_LAST_PORT = 65535


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes. Returns the exit status: 2 when the settings or the models do not allow a start."""
    options = _parse(arguments)
    if options.command == "token":
        return _make_token(options)
    if options.command == "doctor":
        return _examine(options)
    signal.signal(signal.SIGTERM, _leave)
    try:
        settings = read_settings()
        configure_logging(settings.log_format)
        _check_reach(options.host, settings)
        # Only now, since it takes a second or two: whoever asks for something wrong is told at once.
        from server.serving import serve  # noqa: PLC0415

        serve(settings, options.host, options.port, options.workers)
    except SettingsError as error:
        _say_what_is_wrong(error)
        return _USAGE_ERROR
    except (ModelError, RuntimeFault, MatcherError, TokenFileError, _Refused) as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    except KeyboardInterrupt:
        return 130
    return 0


class _Refused(Exception):
    pass


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m server", description="Serve POST /analyze and its companions.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="port to listen on (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with its models (default: 1)")
    commands = parser.add_subparsers(dest="command", metavar="")
    token = commands.add_parser(
        "token",
        help="make a token for a client",
        description="Make a token. Its secret is printed once and kept nowhere; the file gets its sha256.",
        epilog="example: python -m server token --name app --domains slovenia,serbia --file tokens.toml",
    )
    token.add_argument("--name", required=True, help="how logs call the client")
    token.add_argument("--rights", default="analyze", help=f"comma-separated: {', '.join(RIGHTS)} (default: analyze)")
    token.add_argument("--domains", help="comma-separated domains that it may use (default: all)")
    token.add_argument("--rate", type=float, default=0.0, help="requests a second (default: RATE_LIMIT)")
    token.add_argument("--file", type=Path, help="token file to add it to; name it in API_TOKENS_FILE")
    doctor = commands.add_parser(
        "doctor",
        help="check models, provider, database, galleries, disk and permissions",
        description="Check everything that serving needs and say what to do. Exit status: 0 all well, 1 a problem.",
    )
    doctor.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error("--workers must be 1 or more")
    return options


def _port(text: str) -> int:
    # asyncio takes any number, and listens on what is left of it in 16 bits.
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 0 (any that is free) to {_LAST_PORT}")
    return int(text)


def _make_token(options: argparse.Namespace) -> int:
    rights = options.rights.split(",")
    domains = options.domains.split(",") if options.domains else None
    secret, entry = new_token(options.name, rights, domains, options.rate)
    try:
        if options.file is None:
            parse_tokens(entry, "the new token")
        else:
            add_token(options.file, entry)
    except TokenFileError as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    if options.file is None:
        print(f"{entry}\n# the secret, shown once:", file=sys.stderr)
    print(secret)
    return 0


def _examine(options: argparse.Namespace) -> int:
    try:
        settings = read_settings()
    except SettingsError as error:
        _say_what_is_wrong(error)
        return _USAGE_ERROR
    from server.doctor import examine  # noqa: PLC0415

    findings = list(examine(settings))
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        for finding in findings:
            print(f"{finding.status:8} {finding.part}: {finding.detail}")
    return int(any(finding.status == "problem" for finding in findings))


def _say_what_is_wrong(error: SettingsError) -> None:
    print(f"{error}. See the table of settings in README.md.", file=sys.stderr)


def _check_reach(host: str, settings: Settings) -> None:
    if not is_loopback(host) and not tokens_asked_for(settings):
        raise _Refused(
            f"Without tokens the server listens on this machine only, not on {host}. "
            "Set API_TOKENS to one or more comma-separated secrets, or API_TOKENS_FILE to a file that "
            "`python -m server token` makes, or leave --host at 127.0.0.1."
        )


def _leave(_number: int, _frame: FrameType | None) -> None:
    # Raised while the server starts, or by uvicorn once it has answered what was under way.
    sys.exit(0)
