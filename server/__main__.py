"""``python -m server``: check everything, then listen."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import shlex
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import uvicorn
from pydantic import ValidationError

from matchers.demo import DOMAIN as DEMO_DOMAIN
from matchers.demo import demo_picture
from matchers.errors import MatcherError
from models.errors import ModelError
from models.settings import Settings
from runtime.engine import open_engine
from runtime.errors import RuntimeFault
from server.logs import configure_logging
from server.tokens import Tokens
from server.worker import build

logger = logging.getLogger("server")

_USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes. Returns the exit status: 2 when the settings or the models do not allow a start."""
    options = _parse(arguments)
    configure_logging()
    signal.signal(signal.SIGTERM, _leave)
    try:
        settings = Settings()
        _check_reach(options.host, settings)
        if options.workers == 1:
            _serve_alone(options, settings)
        else:
            _serve_many(options, settings)
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            name = ".".join(str(part) for part in problem["loc"]).upper()
            print(f"{name}: {problem['msg']}. See the table of settings in README.md.", file=sys.stderr)
        return _USAGE_ERROR
    except (ModelError, RuntimeFault, MatcherError, _Refused) as error:
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
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with its models (default: 1)")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error("--workers must be 1 or more")
    return options


def _check_reach(host: str, settings: Settings) -> None:
    if not _is_loopback(host) and not Tokens(settings.api_tokens.get_secret_value()):
        raise _Refused(
            f"Without API_TOKENS the server listens on this machine only, not on {host}. "
            "Set API_TOKENS to one or more comma-separated secrets, or leave --host at 127.0.0.1."
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _serve_alone(options: argparse.Namespace, settings: Settings) -> None:
    app = build(settings)
    _say_how_to_ask(options, settings)
    uvicorn.run(app, host=options.host, port=options.port, log_config=None, server_header=False, access_log=False)


def _serve_many(options: argparse.Namespace, settings: Settings) -> None:
    open_engine(settings)
    uvicorn.run(
        "server.worker:build",
        factory=True,
        workers=options.workers,
        host=options.host,
        port=options.port,
        log_config=None,
        server_header=False,
        access_log=False,
    )


def _say_how_to_ask(options: argparse.Namespace, settings: Settings) -> None:
    picture = demo_picture()
    if picture is not None and not settings.api_tokens.get_secret_value():
        file = shlex.quote(f"image=@{picture}")
        logger.info("try: curl -F %s 'http://%s:%d/analyze?domain=%s'", file, options.host, options.port, DEMO_DOMAIN)


def _leave(_number: int, _frame: FrameType | None) -> None:
    # Raised while the server starts, or by uvicorn once it has answered what was under way.
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
