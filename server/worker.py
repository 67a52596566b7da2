"""From settings to an application; what ``uvicorn --factory server.worker:build`` and gunicorn call."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import ExitStack

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matchers.demo import ensure_demo
from matchers.errors import MatcherError
from matchers.service import Stores, open_stores
from models.settings import Settings, read_settings
from runtime.engine import FaceEngine, open_engine
from runtime.memory import share_one_arena
from server.app import create_app
from server.backend import changeable
from server.drain import drain_on_sigterm
from server.logs import configure_logging
from server.reload import reload_on_sighup

logger = logging.getLogger(__name__)


def build(settings: Settings | None = None) -> ASGIApp:
    """Check the settings and open the models; the galleries are opened in the process that serves.

    So one call before ``fork`` (``gunicorn --preload``) does for all workers: connections, threads and the embedded
    PostgreSQL do not survive a fork, models are opened anew by themselves.

    Args:
        settings: default: read from the environment and ``.env``.

    Raises:
        SettingsError: a setting is wrong.
        ModelError: a model file is missing or unusable; the message gives the command that helps.
        ProviderError: the execution provider that was asked for cannot be loaded; the message says what to install.
        TokenFileError: a token cannot be read.
        InvalidName: ``DEFAULT_DOMAIN`` is not admitted as a name.
    """
    settings = settings or read_settings()
    configure_logging(settings.log_format)
    share_one_arena()
    engine = open_engine(settings)
    changeable(settings, engine)
    return Service(settings, engine)


class Service:
    """The ASGI application of one worker: opened when the worker starts, closed when it ends."""

    def __init__(self, settings: Settings, engine: FaceEngine) -> None:
        self._settings = settings
        self._engine = engine
        self._app: Starlette | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            assert self._app is not None, "a server that keeps to ASGI starts the lifespan before the first request"
            await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            app = await run_in_threadpool(self._open)
        except Exception as error:
            # Raised, it would tell the server that there is no lifespan here, and the worker would serve without.
            logger.exception("the service cannot start")
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return

        async def noticed(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                drain_on_sigterm(app, self._settings.drain_seconds)
                reload_on_sighup(app.state.reloader)
                logger.info("serving", extra={"fields": {"pid": os.getpid()}})
            elif message["type"] == "lifespan.shutdown.failed" and _is_cancelled():
                # Whoever pressed Ctrl-C twice knows why, and all is closed by now: there is no traceback to show.
                message = {"type": "lifespan.shutdown.failed", "message": ""}
            await send(message)

        self._app = app
        await app(scope, receive, noticed)

    def _open(self) -> Starlette:
        with ExitStack() as opening:
            detector = self._engine.detector_card.name
            stores = opening.enter_context(open_stores(self._settings, self._engine.embedder_card, detector))
            self._make_demo(stores)
            return create_app(self._settings, self._engine, stores, opening.pop_all().close, read_settings)

    def _make_demo(self, stores: Stores) -> None:
        try:
            ensure_demo(self._engine, stores, keep_thumbnails=self._settings.keep_thumbnails)
        except MatcherError as error:
            logger.warning("there is no demo domain: %s", error)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
