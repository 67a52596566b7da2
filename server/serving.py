"""The service on a socket: in this process, or in several that are watched."""

from __future__ import annotations

import logging
import os
import shlex
import tempfile
from typing import Any

import uvicorn
from uvicorn.supervisors import multiprocess

from matchers.demo import DOMAIN as DEMO_DOMAIN
from matchers.demo import demo_picture
from models.settings import Settings
from runtime.engine import open_engine
from server.connections import GuardedProtocol
from server.metrics import FOLDER as METRICS_FOLDER
from server.tokens import tokens_asked_for
from server.worker import build

logger = logging.getLogger("server")

# As long as gunicorn gives its workers to finish what is under way.
_GRACE_SECONDS = 30
# A worker that is still importing, on a machine that is busy, is not one that hangs.
_HANGS_AFTER_SECONDS = 30
_MEMORY = "/dev/shm"  # noqa: S108


def serve(settings: Settings, host: str, port: int, workers: int) -> None:
    """Serve until a signal comes.

    Raises:
        ModelError, RuntimeFault, MatcherError, TokenFileError: the settings or the models do not allow a start.
    """
    if workers == 1:
        _serve_alone(settings, host, port)
    else:
        _serve_many(settings, host, port, workers)


def _serve_alone(settings: Settings, host: str, port: int) -> None:
    app = build(settings)
    _say_how_to_ask(settings, host, port)
    uvicorn.run(app, **_listening(host, port))


def _serve_many(settings: Settings, host: str, port: int, workers: int) -> None:
    open_engine(settings)
    # Figures are files that workers map into their memory: on a disk that is full, writing them would end the process.
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="face-metrics-", dir=memory) as folder:
        os.environ.setdefault(METRICS_FOLDER, folder)
        multiprocess.Process = _Worker  # type: ignore[misc]
        uvicorn.run("server.worker:build", factory=True, workers=workers, **_listening(host, port))


class _Worker(multiprocess.Process):
    """A worker whose death is seen at once."""

    def start(self) -> None:
        super().start()
        # uvicorn keeps the worker's end of the pipe open here as well, so nobody would hear a worker hang up that is
        # killed between question and answer: it was given as long as one that hangs.
        self.child_conn.close()


def _listening(host: str, port: int) -> dict[str, Any]:
    return {
        "host": host,
        "port": port,
        "http": GuardedProtocol,
        "ws": "none",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": _GRACE_SECONDS,
        "timeout_worker_healthcheck": _HANGS_AFTER_SECONDS,
    }


def _say_how_to_ask(settings: Settings, host: str, port: int) -> None:
    picture = demo_picture()
    if picture is not None and not tokens_asked_for(settings):
        file = shlex.quote(f"image=@{picture}")
        logger.info("try: curl -F %s 'http://%s:%d/analyze?domain=%s'", file, host, port, DEMO_DOMAIN)
