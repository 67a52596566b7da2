"""A server of this project in a process of its own, on loopback, with the default pack."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.peers import ROOT, WORK
from models.settings import Settings

BOUNDARY = "benchmark-boundary"
_POLL_SECONDS = 0.01
_PATIENCE = 120.0


@dataclass(frozen=True)
class Served:
    """A server that is ready.

    Attributes:
        url: where it listens.
        pid: of its process.
        seconds: from the start of the process until it was ready.
    """

    url: str
    pid: int
    seconds: float


@contextlib.contextmanager
def served(folder: Path, **variables: str) -> Iterator[Served]:
    """A server with its data in ``folder``, told nothing but ``variables``; stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {field.upper() for field in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name.upper() not in own}
    environment |= {"MODELS_DIR": str(Settings().models_path.resolve()), "DATA_DIR": str(folder), "DRAIN_SECONDS": "0"}
    environment |= {"EXECUTION_PROVIDER": "cpu", "PYTHONPATH": str(ROOT), **variables}
    WORK.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "server", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with (WORK / "server.log").open("w") as log:
        start = time.monotonic()
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)  # noqa: S603
    try:
        while not _is_ready(url):
            if process.poll() is not None or time.monotonic() > start + _PATIENCE:
                raise SystemExit(f"the server did not start; see {WORK / 'server.log'}")
            time.sleep(_POLL_SECONDS)
        yield Served(url, process.pid, time.monotonic() - start)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def connect(url: str) -> http.client.HTTPConnection:
    """A connection to the server at ``url``."""
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=120)


def form(picture: bytes) -> bytes:
    """The body of a request to ``/analyze``."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="picture"\r\n\r\n'.encode()
    return head + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


def analyze(connection: http.client.HTTPConnection, body: bytes, domain: str) -> tuple[int, bytes]:
    """Status and body of the answer to what :func:`form` made."""
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    connection.request("POST", f"/analyze?domain={domain}", body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def set_mode(url: str, domain: str, mode: str, **more: object) -> None:
    """How ``domain`` is searched from now on."""
    connection = connect(url)
    body = json.dumps({"mode": mode, "force": True, **more})
    connection.request("PUT", f"/domains/{domain}/mode", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"the mode cannot be set: {answer.status} {answer.read()[:300]!r}")
    answer.read()
    connection.close()


def _is_ready(url: str) -> bool:
    connection = connect(url)
    try:
        connection.request("GET", "/health/ready")
        return bool(json.loads(connection.getresponse().read())["status"] == "ready")
    except (OSError, KeyError, http.client.HTTPException):
        return False
    finally:
        connection.close()
