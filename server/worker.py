"""From settings to an application; also what ``uvicorn --factory server.worker:build`` calls in each worker."""

from __future__ import annotations

from contextlib import ExitStack

from starlette.applications import Starlette

from matchers.demo import ensure_demo
from matchers.service import open_stores
from models.settings import Settings
from runtime.engine import open_engine
from server.app import create_app
from server.logs import configure_logging


def build(settings: Settings | None = None) -> Starlette:
    """Open models and stores and put the application together; its end closes them.

    The demo domain is made unless there is one.

    Args:
        settings: default: read from the environment and ``.env``.

    Raises:
        ModelError: a model file is missing or unusable; the message gives the command that helps.
        ProviderError: the execution provider that was asked for cannot be loaded; the message says what to install.
        MatcherError: the galleries cannot be used as the settings say.
    """
    configure_logging()
    settings = settings or Settings()
    engine = open_engine(settings)
    with ExitStack() as opening:
        stores = opening.enter_context(open_stores(settings, engine.embedder_card, engine.detector_card.name))
        ensure_demo(engine, stores)
        return create_app(settings, engine, stores, opening.pop_all().close)
