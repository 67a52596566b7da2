from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from matchers.service import Stores
from models.settings import Settings
from runtime.engine import FaceEngine
from server.app import create_app
from server.connections import GuardedProtocol

PATIENCE = 60.0
GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"


class Hasty(GuardedProtocol):
    head_seconds = 0.3
    head_bytes = 8192


@pytest.fixture(scope="module")
def app(pkl_settings: Settings, engine: FaceEngine, stores: Stores) -> Starlette:
    return create_app(pkl_settings, engine, stores)


@pytest.fixture(scope="module")
def hasty(app: Starlette, serve: Any) -> Iterator[httpx.Client]:
    with serve(app, http=Hasty, ws="none") as client:
        yield client


def connected(client: httpx.Client) -> socket.socket:
    url = client.base_url
    assert url.port is not None
    return socket.create_connection((url.host, url.port), timeout=PATIENCE)


def all_of(peer: socket.socket) -> bytes:
    """What comes until the server closes."""
    received = b""
    while part := _part(peer):
        received += part
    return received


def _part(peer: socket.socket) -> bytes:
    try:
        return peer.recv(65536)
    except ConnectionError:
        return b""


def refusal(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert "x-content-type-options: nosniff" in lines
    assert "connection: close" in lines
    assert f"content-length: {len(body)}" in lines
    error = json.loads(body)["error"]
    assert len(error["message"]) > 20
    return int(lines[0].split()[1]), error["code"]


def test_whoever_sends_nothing_is_sent_away(hasty: httpx.Client) -> None:
    with connected(hasty) as peer:
        assert all_of(peer) == b""


@pytest.mark.parametrize("drop", [b"X-A: b\r\n", b"a"], ids=["header by header", "letter by letter"])
def test_a_head_that_comes_drop_by_drop_is_given_up(hasty: httpx.Client, drop: bytes) -> None:
    with connected(hasty) as peer:
        peer.sendall(GET + b"X-B: ")
        done = threading.Event()

        def trickle() -> None:
            while not done.wait(0.02):
                try:
                    peer.sendall(drop)
                except OSError:
                    return

        trickling = threading.Thread(target=trickle)
        trickling.start()
        answer = peer.recv(65536)
        done.set()
        trickling.join()
    assert refusal(answer) == (408, "head_timeout")


def test_empty_lines_without_end_are_given_up(hasty: httpx.Client) -> None:
    with connected(hasty) as peer:
        peer.sendall(GET + b"\r\n")
        assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")
        deadline = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < deadline:
                peer.sendall(b"\r\n")
                time.sleep(0.02)
        except OSError:
            return
    raise AssertionError("the connection stays open")


def test_a_head_without_end_is_refused(hasty: httpx.Client) -> None:
    with connected(hasty) as peer:
        peer.sendall(GET + b"X-A: " + b"a" * 2_000_000)
        assert refusal(all_of(peer)) == (431, "head_too_large")


def test_a_body_may_take_longer_than_a_head(hasty: httpx.Client) -> None:
    body = b"--x--\r\n"
    head = f"POST /analyze HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with connected(hasty) as peer:
        peer.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + body[:3])
        time.sleep(3 * Hasty.head_seconds)
        peer.sendall(body[3:])
        assert peer.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_one_connection_serves_many_requests(hasty: httpx.Client) -> None:
    with connected(hasty) as peer:
        for _ in range(5):
            peer.sendall(GET + b"\r\n")
            assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")
        peer.sendall((GET + b"\r\n") * 20)
        received = b""
        while received.count(b"HTTP/1.1 200 ") < 20:
            received += peer.recv(65536)


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX A: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: a\0b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length : 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +3\r\n\r\nabc",
    ],
    ids=[
        "TLS", "no request", "bytes in the address", "space in a name", "NUL", "two lengths", "length and chunks",
        "chunks and length", "chunks not last", "space before the colon", "sign in the length",
    ],
)  # fmt: skip
def test_what_two_servers_might_read_in_two_ways_is_refused(hasty: httpx.Client, request_: bytes) -> None:
    with connected(hasty) as peer:
        peer.sendall(request_)
        assert refusal(all_of(peer)) == (400, "invalid_http")


def test_nobody_gets_a_websocket(hasty: httpx.Client) -> None:
    headers = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    with connected(hasty) as peer:
        peer.sendall(GET + headers + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_methods_that_nothing_takes(hasty: httpx.Client, method: str) -> None:
    """CORS is off: no page of another origin learns anything."""
    path = "localhost:1" if method == "CONNECT" else "/analyze"
    with connected(hasty) as peer:
        origin = b"Origin: https://example.org\r\nAccess-Control-Request-Method: POST\r\nX-Mirror: look\r\n\r\n"
        peer.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + origin)
        answer = peer.recv(65536)
    assert answer.split()[1].startswith(b"4"), answer
    assert b"access-control" not in answer.lower()
    assert b"look" not in answer


def test_head_is_get_without_a_body(hasty: httpx.Client) -> None:
    for path in ("/", "/health/live", "/openapi.json", "/nothing"):
        whole, head = hasty.get(path), hasty.head(path)
        assert (head.status_code, head.content) == (whole.status_code, b"")
        assert head.headers["content-length"] == whole.headers["content-length"]
