"""The application over a real engine and real PKL galleries, on a real socket in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from matchers.demo import ensure_demo
from matchers.service import Stores, open_stores
from models.settings import Settings
from runtime.engine import FaceEngine
from server.app import create_app

Serve = Callable[..., AbstractContextManager[httpx.Client]]


@contextmanager
def serving(app: Starlette, **options: Any) -> Iterator[httpx.Client]:
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, server_header=False, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Runs an application on a free port of the loopback address, with options of uvicorn; gives a client for it."""
    return serving


@pytest.fixture(scope="session")
def pkl_settings(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Settings:
    """PKL only, no token."""
    folder = tmp_path_factory.mktemp("server")
    return Settings(_env_file=None, data_dir=folder, models_dir=models_dir, vector_db_enabled=False)


@pytest.fixture(scope="session")
def stores(pkl_settings: Settings, engine: FaceEngine, group_picture: Path) -> Iterator[Stores]:
    """PKL galleries that hold the demo domain."""
    with open_stores(pkl_settings, engine.embedder_card, engine.detector_card.name) as opened:
        ensure_demo(engine, opened)
        yield opened


@pytest.fixture(scope="session")
def client(pkl_settings: Settings, engine: FaceEngine, stores: Stores) -> Iterator[httpx.Client]:
    """A client of the service in ``pkl_only``, without tokens."""
    with ExitStack() as stack:
        yield stack.enter_context(serving(create_app(pkl_settings, engine, stores)))
