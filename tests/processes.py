"""A real server process on a real socket, over its own data folder."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

START_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Service:
    """A running server.

    Attributes:
        client: talks to it.
        process: the server.
        log: what it writes to standard error.
    """

    client: httpx.Client
    process: subprocess.Popen[bytes]
    log: Path

    def analyze(self, picture: Path | bytes, domain: str, **parameters: str) -> dict[str, Any]:
        """The answer to one picture, which must be 200."""
        data = picture if isinstance(picture, bytes) else picture.read_bytes()
        answer = self.client.post("/analyze", params={"domain": domain, **parameters}, files={"image": ("x", data)})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def analyze_all(self, pictures: list[tuple[Path, str]], threads: int) -> list[dict[str, Any]]:
        """The answers to pictures, each with its domain, asked from ``threads`` threads at once."""
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda asked: self.analyze(*asked), pictures))


Furnish = Callable[[Path], Path]
Start = Callable[..., AbstractContextManager[Service]]


@pytest.fixture(scope="session")
def environment(plain_environment: Mapping[str, str], models_dir: Path) -> Mapping[str, str]:
    """The default settings, on the models of the tests."""
    return {**plain_environment, "MODELS_DIR": str(models_dir), "EXECUTION_PROVIDER": "cpu", "DRAIN_SECONDS": "0"}


@pytest.fixture(scope="session")
def start(environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory, furnished: Furnish) -> Start:
    """Starts ``python -m server``, or ``python -m program`` with ``{port}`` in its arguments, with further settings and
    waits until it is ready. ``bare``: nothing was there before, not even PostgreSQL's cluster."""

    @contextmanager
    def started(*arguments: str, program: str = "server", bare: bool = False, **settings: str) -> Iterator[Service]:
        folder = tmp_path_factory.mktemp("service")
        if not bare:
            _prepare(settings, furnished)
        port = _free_port()
        if program == "server":
            arguments = ("--port", "{port}", *arguments)
        command = [sys.executable, "-m", program, *(argument.format(port=port) for argument in arguments)]
        log = folder / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=folder, env={**environment, **settings}, stderr=output)
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, limits=limits) as client:
            try:
                _wait_until_ready(client, process, log)
                yield Service(client, process, log)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)

    return started


@pytest.fixture(scope="session")
def run_matchers(
    environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory, furnished: Furnish
) -> Callable[..., str]:
    """Runs ``python -m matchers`` with arguments and further settings; returns what it prints."""
    folder = tmp_path_factory.mktemp("matchers")

    def run(*arguments: str, **settings: str) -> str:
        _prepare(settings, furnished)
        command = [sys.executable, "-m", "matchers", *arguments]
        result = subprocess.run(
            command, cwd=folder, env={**environment, **settings}, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


def _prepare(settings: Mapping[str, str], furnished: Furnish) -> None:
    """Save what is about to run with such settings the time of making a PostgreSQL cluster."""
    embedded = settings.get("VECTOR_DB_ENABLED") != "false" and not settings.get("DATABASE_URL")
    if embedded and "DATA_DIR" in settings:
        furnished(Path(settings["DATA_DIR"]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}:\n{log.read_text()}"
        with suppress(httpx.TransportError):
            if client.get("/health/ready").status_code == 200:
                return
        # Whoever asks without a pause takes the time from the server that gets ready.
        time.sleep(0.02)
    raise AssertionError(f"the server was not ready within {START_SECONDS} s:\n{log.read_text()}")
