"""Settings that may change while the server runs: tokens, thresholds, limits.

``POST /reload`` and SIGHUP touch the file ``DATA_DIR/reload``. Every worker looks at its time once a second, so it does
not matter which of them was asked.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from matchers.errors import MatcherError
from models.errors import SettingsError
from models.settings import Settings
from server.backend import Backend, backend_of, changeable
from server.errors import ApiError
from server.tokens import TokenFileError

logger = logging.getLogger(__name__)

CHANGEABLE: Final = frozenset(
    {
        "api_tokens",
        "api_tokens_file",
        "default_domain",
        "gate_comparisons",
        "gate_failure_rate",
        "gate_in_sync",
        "gate_top1_rate",
        "gate_top5_overlap",
        "match_threshold",
        "rate_limit",
        "top_k",
        "upload_timeout",
        "vector_db_dual_mode",
        "vector_db_use_pgvector_only",
    }
)
"""Settings that a reload takes up; the others are read at the start only."""

_LOOK_SECONDS = 1.0


class Reloader:
    """Takes up new settings when somebody asked for it, in whichever worker."""

    def __init__(self, settings: Settings, read: Callable[[], Settings]) -> None:
        """``settings``: those in force; ``read``: reads them anew, and may raise SettingsError."""
        self.read = read
        self._settings = settings
        self._file = settings.data_dir / "reload"
        self._seen = self._stamp()

    def ask(self) -> None:
        """Have every worker of this ``DATA_DIR`` reload within a second or so.

        Raises:
            OSError: the file cannot be written.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_bytes(b"")

    async def watch(self, app: Starlette) -> None:
        """Reload ``app`` whenever somebody asked; a failure is logged and leaves everything as it was."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                await run_in_threadpool(self._take_up, app)

    def _take_up(self, app: Starlette) -> None:
        try:
            settings = self.read()
            app.state.backend = refreshed(app.state.backend, settings)
        except (SettingsError, TokenFileError, MatcherError) as error:
            logger.error("nothing was reloaded, the old settings stay in force: %s", error)
            return
        changed = {name for name in Settings.model_fields if getattr(settings, name) != getattr(self._settings, name)}
        if late := sorted(name.upper() for name in changed - CHANGEABLE):
            logger.warning("a new value of %s needs a restart", ", ".join(late))
        self._settings = settings
        logger.info("reloaded: %s", ", ".join(sorted(name.upper() for name in changed & CHANGEABLE)) or "no new value")

    def _stamp(self) -> int | None:
        try:
            return self._file.stat().st_mtime_ns
        except OSError:
            return None


def refreshed(backend: Backend, settings: Settings) -> Backend:
    """``backend`` with what ``settings`` may change; PKL galleries are read anew at their next use.

    Raises:
        TokenFileError: a token cannot be read.
        InvalidName: ``DEFAULT_DOMAIN`` is not admitted as a name.
    """
    fresh = replace(backend, **changeable(settings, backend.engine))
    backend.stores.pkl.forget()
    return fresh


def reload_on_sighup(reloader: Reloader) -> None:
    """From now on SIGHUP asks for a reload; does nothing outside the main thread, which gets no signals."""

    def ask(_number: int, _frame: FrameType | None) -> None:
        try:
            reloader.ask()
        except OSError as error:
            logger.error("SIGHUP came, but nothing is reloaded: DATA_DIR cannot be written: %s", error.strerror)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, ask)


async def reload(request: Request) -> Response:
    """Have all workers take up changed settings, tokens and galleries; 202, since each does so within a second."""
    backend = backend_of(request)
    backend.tokens.check(request.headers.get("authorization"), "admin")
    reloader: Reloader = request.app.state.reloader
    try:
        changeable(reloader.read(), backend.engine)
        reloader.ask()
    except (SettingsError, TokenFileError) as error:
        raise ApiError(422, "invalid_settings", f"Nothing was reloaded: {error}") from error
    except OSError as error:
        raise ApiError(503, "not_reloaded", f"DATA_DIR cannot be written: {error.strerror}.") from error
    return JSONResponse({"status": "success", "reload": "asked"}, 202)
