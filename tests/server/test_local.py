from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette

from models.settings import Settings
from server.app import create_app
from server.local import is_loopback


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_known_by_its_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "example.org", "localhost.example.org", "10.0.0.1", "0.0.0.0", "::", "::ffff:8.8.8.8"]
)
def test_others_are_not_this_machine(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_local_names_are_answered(client: httpx.Client, host: str) -> None:
    assert client.get("/health/live", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example:8000", "10.0.0.1", "localhost.evil.example"])
def test_a_foreign_name_is_refused_without_tokens(client: httpx.Client, host: str) -> None:
    answer = client.get("/domains", headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "local_only")


def test_a_client_of_another_machine_is_refused_without_tokens(client_app: Starlette, ask: Callable[..., Any]) -> None:
    assert ask(client_app, client=("10.1.2.3", 5)) == 403
    assert ask(client_app, client=("127.0.0.1", 5)) == 200
    assert ask(client_app, client=None) == 200


def test_with_tokens_any_name_is_answered(
    engine: Any, stores: Any, pkl_settings: Settings, serve: Callable[..., Any]
) -> None:
    settings = pkl_settings.model_copy(update={"api_tokens": SecretStr("secret")})
    with serve(create_app(settings, engine, stores)) as client:
        headers = {"Host": "faces.example", "Authorization": "secret"}
        assert client.get("/domains", headers=headers).status_code == 200


@pytest.fixture
def client_app(engine: Any, stores: Any, pkl_settings: Settings) -> Starlette:
    return create_app(pkl_settings, engine, stores)


@pytest.fixture
def ask() -> Callable[..., int]:
    """The status of one GET request, sent to the application as a server would."""

    def status(app: Starlette, client: tuple[str, int] | None) -> int:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/health/live",
            "raw_path": b"/health/live",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "client": client,
            "state": {},
        }
        found = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                found.append(message["status"])

        asyncio.run(app(scope, receive, send))
        return int(found[0])

    return status
