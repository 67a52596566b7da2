"""Signing in from a browser: what the cookie opens, and what it does not."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchers.service import Stores
from models.settings import Settings
from runtime.engine import FaceEngine
from server.app import create_app
from server.sessions import SECONDS, SessionKey, session_key
from server.tokens import new_token

DIGEST = bytes(32)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Path]:
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    made = {
        "reader": new_token("reader", ["analyze"], ["demo"], 0),
        "boss": new_token("boss", ["admin"], None, 0),
    }
    file.write_text("\n".join(entry for _, entry in made.values()))
    return {name: secret for name, (secret, _) in made.items()}, file


@pytest.fixture(scope="module")
def guarded(
    pkl_settings: Settings, engine: FaceEngine, stores: Stores, serve: Any, secrets: tuple[dict[str, str], Path]
) -> Iterator[httpx.Client]:
    settings = pkl_settings.model_copy(update={"api_tokens_file": secrets[1]})
    with serve(create_app(settings, engine, stores)) as opened:
        yield opened


@pytest.fixture
def browser(guarded: httpx.Client) -> Iterator[httpx.Client]:
    """A client with cookies of its own that, like a browser, says where its requests come from."""
    origin = str(guarded.base_url).rstrip("/")
    with httpx.Client(base_url=guarded.base_url, headers={"Origin": origin, "Sec-Fetch-Site": "same-origin"}) as opened:
        yield opened


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_token_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(
    browser: httpx.Client, secrets: tuple[dict[str, str], Path]
) -> None:
    assert code(browser.get("/me")) == (401, "unauthorized")
    answer = browser.post("/session", json={"token": secrets[0]["reader"]})
    assert answer.json() == {"status": "success", "name": "reader", "rights": ["analyze"], "domains": ["demo"]}
    attributes = [part.strip().lower() for part in answer.headers["set-cookie"].split(";")]
    assert {"httponly", "samesite=strict", "path=/", f"max-age={SECONDS}"} <= set(attributes)
    assert secrets[0]["reader"] not in answer.headers["set-cookie"]
    assert browser.get("/me").json()["name"] == "reader"
    assert browser.get("/domains").status_code == 200
    assert code(browser.get("/status")) == (403, "forbidden")
    assert browser.delete("/session").status_code == 200
    assert code(browser.get("/me")) == (401, "unauthorized")


def test_an_admin_has_all_rights(browser: httpx.Client, secrets: tuple[dict[str, str], Path]) -> None:
    answer = browser.post("/session", json={"token": f" {secrets[0]['boss']} "})
    assert answer.json()["rights"] == ["analyze", "enrol", "admin"]
    assert answer.json()["domains"] is None
    assert browser.get("/status").status_code == 200


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"token": "wrong"}', (401, "unauthorized")),
        (b'{"token": ""}', (422, "invalid_body")),
        (b'{"token": 7}', (422, "invalid_body")),
        (b"[]", (422, "invalid_body")),
        (b"[" * 4000, (422, "invalid_body")),
        (b'{"token": "' + b"x" * 9000 + b'"}', (422, "invalid_body")),
        (b"\xff", (422, "invalid_body")),
        (b'{"token": "\\ud800"}', (401, "unauthorized")),
    ],
)
def test_what_is_no_token_opens_nothing(browser: httpx.Client, body: bytes, expected: tuple[int, str]) -> None:
    answer = browser.post("/session", content=body)
    assert code(answer) == expected
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_another_site_cannot_act_through_the_browser(
    guarded: httpx.Client, client: httpx.Client, secrets: tuple[dict[str, str], Path], headers: dict[str, str]
) -> None:
    assert code(guarded.post("/session", json={"token": secrets[0]["boss"]}, headers=headers)) == (403, "cross_site")
    with httpx.Client(base_url=guarded.base_url) as opened:
        opened.post("/session", json={"token": secrets[0]["boss"]})
        picture = {"image": ("x.jpg", b"x")}
        assert code(opened.post("/analyze", files=picture, headers=headers)) == (403, "cross_site")
        assert code(opened.post("/analyze", files=picture)) == (415, "unsupported_format")
        token = {"Authorization": secrets[0]["boss"], **headers}
        assert code(opened.post("/analyze", files=picture, headers=token)) == (415, "unsupported_format")
    assert code(client.post("/analyze", files=picture, headers=headers)) == (403, "cross_site")


def test_without_tokens_there_is_nothing_to_sign_in_to(client: httpx.Client) -> None:
    assert code(client.post("/session", json={"token": "any"})) == (409, "no_tokens")
    assert client.get("/me").json()["rights"] == ["analyze", "enrol", "admin"]


def test_a_session_is_known_to_every_worker_and_ends_with_its_token(
    pkl_settings: Settings, engine: FaceEngine, stores: Stores, serve: Any, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.toml"
    settings = pkl_settings.model_copy(update={"data_dir": tmp_path, "api_tokens_file": file})

    def worker() -> Any:
        return serve(create_app(settings, engine, stores))

    secret, entry = new_token("app", ["analyze"], None, 0)
    file.write_text(entry)
    with worker() as first, worker() as second:
        cookie = first.post("/session", json={"token": secret}).cookies["session"]
        assert second.get("/me", headers={"Cookie": f"session={cookie}"}).json()["name"] == "app"
    assert stat.S_IMODE((tmp_path / "session.key").stat().st_mode) == 0o600
    file.write_text(new_token("app", ["analyze"], None, 0)[1])
    with worker() as third:
        assert code(third.get("/me", headers={"Cookie": f"session={cookie}"})) == (401, "unauthorized")


def test_a_session_ends_by_itself() -> None:
    now = [1000.0]
    key = SessionKey(b"k" * 32, lambda: now[0])
    cookie = key.issue("app", DIGEST)
    assert (key.name(cookie), key.holds(cookie, DIGEST)) == ("app", True)
    now[0] += SECONDS
    assert key.name(cookie) is None


def test_a_cookie_of_another_key_token_or_name_is_none_of_ours() -> None:
    key = SessionKey(b"k" * 32)
    cookie = key.issue("app", DIGEST)
    payload, signature = cookie.split(".")
    other = key.issue("boss", DIGEST).split(".")[0]
    assert not SessionKey(b"j" * 32).holds(cookie, DIGEST)
    assert not key.holds(cookie, b"1" * 32)
    assert not key.holds(f"{other}.{signature}", DIGEST)
    assert not key.holds(f"{payload}.", DIGEST)


@given(st.text() | st.text("AQgz.-_=", max_size=80))
def test_any_text_may_come_as_a_cookie(text: str) -> None:
    key = SessionKey(b"k" * 32)
    assert key.name(text) is None or not key.holds(text, DIGEST)


def test_workers_that_start_together_share_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = list(pool.map(lambda _: session_key(tmp_path / "data"), range(64)))
    cookie = keys[0].issue("app", DIGEST)
    assert all(key.holds(cookie, DIGEST) for key in keys)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["session.key"]


def test_a_token_that_does_not_come_is_not_waited_for(guarded: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.signin._BODY_SECONDS", 0.2)
    url = guarded.base_url
    assert url.port is not None
    with socket.create_connection((url.host, url.port), timeout=60) as peer:
        peer.sendall(b'POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"token":')
        answer = peer.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"upload_timeout" in answer
