"""Work beside the requests outlives its failures."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from matchers.service import Stores
from models.settings import Settings, read_settings
from runtime.engine import FaceEngine
from server.app import create_app
from server.background import kept_up

WAIT = 30.0


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_fails_in_a_way_that_nobody_thought_of_begins_again(caplog: pytest.LogCaptureFixture) -> None:
    begun = 0
    again = asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise ZeroDivisionError
        again.set()

    async def run() -> None:
        task = asyncio.create_task(kept_up("counting", work))
        await asyncio.wait_for(again.wait(), WAIT)
        task.cancel()

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert "counting failed and begins again" in caplog.text


def test_settings_that_cannot_be_read_are_no_end_of_reloading(
    serve: Callable[[Starlette], AbstractContextManager[httpx.Client]],
    *,
    pkl_settings: Settings,
    engine: FaceEngine,
    stores: Stores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOP_K", raising=False)
    file = tmp_path / ".env"
    app = create_app(pkl_settings, engine, stores, reread=read_settings)
    with serve(app) as client, caplog.at_level(logging.ERROR):
        file.write_bytes(b"TOP_K=3\nDEFAULT_DOMAIN=caf\xe9")
        answer = client.post("/reload")
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_settings")
        app.state.reloader.ask()
        wait_until(lambda: "nothing was reloaded" in caplog.text)
        assert ".env is no text in UTF-8" in caplog.text
        file.write_text("TOP_K=4")
        assert client.post("/reload").status_code == 202
        wait_until(lambda: app.state.backend.top_k == 4)
