"""The life of the processes: several workers, gunicorn, drain, reload, logs and figures."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

WITHIN = 30.0


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory, run_matchers: Callable[..., str]) -> Path:
    """Holds the demo domain."""
    folder = tmp_path_factory.mktemp("processes")
    run_matchers("demo", DATA_DIR=str(folder))
    return folder


@pytest.fixture(scope="module")
def two_workers(start: Any, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    tokens.write_text("")
    settings = {"DATA_DIR": str(data_dir), "LOG_FORMAT": "json", "API_TOKENS": "one", "API_TOKENS_FILE": str(tokens)}
    with start("--workers", "2", **settings) as service:
        service.client.headers["Authorization"] = "one"
        eventually(lambda: len(workers(service)) == 2)
        yield service
        family = psutil.Process(service.process.pid).children(recursive=True)
    assert service.process.returncode == 0
    _, alive = psutil.wait_procs(family, timeout=WITHIN)
    assert not alive, "something was left running"


def workers(service: Any) -> set[int]:
    """Process ids of those that serve."""
    return {line["pid"] for line in lines(service) if line.get("message") == "serving"}


def lines(service: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.log.read_text().splitlines()]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def test_all_workers_answer_and_are_counted_together(two_workers: Any, group_picture: Path) -> None:
    pids = workers(two_workers)
    assert len(pids) == 2
    before = counted(two_workers)
    answers = two_workers.analyze_all([(group_picture, "demo")] * 12, threads=6)
    assert all(len(answer["recognized_faces"]) == 6 for answer in answers)
    assert counted(two_workers) - before == 12
    figures = two_workers.client.get("/metrics").text
    assert 'face_session{model="sface",provider="CPUExecutionProvider",role="embedder"} 1.0' in figures
    assert "face_pgvector_breaker_open 0.0" in figures
    assert 'face_comparisons_total{top1_match="true"}' in figures


def counted(service: Any) -> float:
    """Pictures answered by all workers together."""
    found = [line for line in service.client.get("/metrics").text.splitlines() if 'outcome="success"' in line]
    return sum(float(line.split()[-1]) for line in found)


def test_each_line_of_the_log_is_an_object_and_each_request_one_line(two_workers: Any, group_picture: Path) -> None:
    headers = {"X-Request-ID": "look-for-me"}
    two_workers.client.post("/analyze", params={"domain": "demo"}, files={"image": b"no picture"}, headers=headers)
    mine = [line for line in lines(two_workers) if line.get("request_id") == "look-for-me"]
    assert len(mine) == 1
    assert mine[0] | {"time": "", "milliseconds": 0, "message": ""} == {
        "time": "",
        "level": "info",
        "logger": "server.requests",
        "message": "",
        "request_id": "look-for-me",
        "method": "POST",
        "path": "/analyze",
        "status": 415,
        "milliseconds": 0,
        "mode": "dual",
        "caller": "token-1",
    }


@pytest.mark.parametrize("way", ["api", "signal"])
def test_a_new_token_is_admitted_by_every_worker_without_a_restart(two_workers: Any, way: str) -> None:
    client = two_workers.client
    secret = f"new-by-{way}"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    token_file(two_workers).write_text(f'[[token]]\nname = "{way}"\nsha256 = "{digest}"\n')
    assert client.get("/domains", headers={"Authorization": secret}).status_code == 401
    if way == "api":
        assert client.post("/reload").status_code == 202
    else:
        os.kill(min(workers(two_workers)), signal.SIGHUP)

    def admitted() -> bool:
        return all(ask_anew(client, secret) == 200 for _ in range(8))

    eventually(admitted)
    assert len(workers(two_workers)) == 2, "a worker was started anew"


def token_file(service: Any) -> Path:
    return Path(psutil.Process(service.process.pid).environ()["API_TOKENS_FILE"])


def ask_anew(client: httpx.Client, secret: str) -> int:
    """The answer over a connection of its own, which any worker may take."""
    headers = {"Authorization": secret}
    return httpx.get(f"{client.base_url}/domains", headers=headers).status_code


def test_a_wrong_token_file_is_refused_and_the_old_tokens_stay(two_workers: Any) -> None:
    tokens = token_file(two_workers)
    tokens.write_text("[[token]]\nname = 'x'\n")
    answer = two_workers.client.post("/reload")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_settings")
    assert two_workers.client.get("/domains").status_code == 200
    tokens.write_text("")


def test_sigterm_says_not_ready_first_then_finishes_what_is_under_way(
    start: Any, data_dir: Path, group_picture: Path
) -> None:
    """The drain lasts until the second SIGTERM, the upload until nobody listens any more."""
    with start(DATA_DIR=str(data_dir), DRAIN_SECONDS="60") as service:
        service.process.send_signal(signal.SIGTERM)
        eventually(lambda: bool(service.client.get("/health/ready").status_code == 503))
        assert len(service.analyze(group_picture, "demo")["faces"]) == 6
        begun, rest = threading.Event(), threading.Event()
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(upload(service, group_picture, begun, rest)))
        asking.start()
        assert begun.wait(WITHIN)
        service.process.send_signal(signal.SIGTERM)
        eventually(lambda: asked_anew(service, group_picture) == 0)
        rest.set()
        asking.join()
        assert answers == [200]
        assert service.process.wait(WITHIN) == 0


def upload(service: Any, picture: Path, begun: threading.Event, rest: threading.Event) -> int:
    """Send the first part, say so, and send the rest when told to."""
    data = picture.read_bytes()

    def body() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n' + data[:1000]
        begun.set()
        assert rest.wait(WITHIN)
        yield data[1000:] + b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    status: int = service.client.post("/analyze?domain=demo", content=body(), headers=headers).status_code
    return status


def asked_anew(service: Any, picture: Path) -> int:
    """The answer over a connection of its own; 0 when the worker behind it went away."""
    try:
        return httpx.post(
            f"{service.client.base_url}/analyze?domain=demo", files={"image": picture.read_bytes()}, timeout=60
        ).status_code
    except httpx.TransportError:
        return 0


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each worker loads", "preload"])
def test_gunicorn_serves_and_stops(start: Any, data_dir: Path, group_picture: Path, preload: tuple[str, ...]) -> None:
    arguments = ("server.worker:build()", "-k", "uvicorn_worker.UvicornWorker", "-w", "2", "-b", "127.0.0.1:{port}")
    with start(*arguments, *preload, program="gunicorn", DATA_DIR=str(data_dir)) as service:
        answers = service.analyze_all([(group_picture, "demo")] * 8, threads=4)
        assert {answer["mode"] for answer in answers} == {"dual"}
        assert all(len(answer["recognized_faces"]) == 6 for answer in answers)
        children = psutil.Process(service.process.pid).children(recursive=True)
        killed = next(child for child in children if "postgres" not in child.name())
        killed.kill()
        eventually(lambda: all(asked_anew(service, group_picture) == 200 for _ in range(4)))
    assert service.process.returncode == 0
    _, alive = psutil.wait_procs(children, timeout=WITHIN)
    assert not alive, "something was left running"
