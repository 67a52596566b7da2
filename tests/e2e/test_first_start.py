"""What a newcomer sees, and what the process does when it is misused or stopped."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

GUESTS = [f"guest-{number}" for number in range(1, 7)]


@pytest.fixture(scope="module")
def newcomer(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    data_dir = tmp_path_factory.mktemp("first") / "a path with spaces" / "data"
    with start(bare=True, DATA_DIR=str(data_dir), API_TOKENS="first-token,second-token") as service:
        service.client.headers["Authorization"] = "second-token"
        yield service


def test_the_first_start_offers_a_demo_domain_in_both_stores(newcomer: Any, group_picture: Path) -> None:
    answer = newcomer.analyze(group_picture, "demo")
    assert answer["mode"] == "dual"
    assert answer["recognized_faces"] == GUESTS
    assert answer["comparison"]["top1_match"] is True
    assert answer["comparison"]["max_distance_delta"] <= 1e-5
    domains = newcomer.client.get("/domains").json()["domains"]
    assert domains == [{"domain": "demo", "mode": "dual", "faces": {"pkl": 6, "pgvector": 6}}]


def test_many_at_once_answer_as_one_by_one(newcomer: Any, group_picture: Path) -> None:
    expected = newcomer.analyze(group_picture, "demo")
    answers = newcomer.analyze_all([(group_picture, "demo")] * 40, threads=32)
    for answer in (expected, *answers):
        del answer["timing_ms"]
    assert answers == [expected] * 40


def test_tokens_are_asked_for_and_stay_out_of_the_log(newcomer: Any) -> None:
    url = str(newcomer.client.base_url)
    for headers in ({}, {"Authorization": "third-token"}):
        assert httpx.post(f"{url}/analyze", files={"image": b"x"}, headers=headers).status_code == 401
    bearer = {"Authorization": "Bearer first-token"}
    assert httpx.get(f"{url}/domains", headers=bearer).status_code == 200
    log = newcomer.log.read_text()
    assert " GET /domains 200 " in log
    assert "-token" not in log


def test_a_body_over_the_limit_is_refused_and_the_process_stays_small(newcomer: Any) -> None:
    process = psutil.Process(newcomer.process.pid)
    before = process.memory_info().rss

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(100 * 2**20 // 2**16):
            yield bytes(2**16)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = newcomer.client.post("/analyze", content=endless(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "image_too_large")
    assert process.memory_info().rss - before < 60 * 2**20


def test_no_training_framework_is_loaded_into_the_process(newcomer: Any) -> None:
    mapped = " ".join(region.path for region in psutil.Process(newcomer.process.pid).memory_maps()).lower()
    assert "onnxruntime" in mapped
    assert not any(name in mapped for name in ("tensorflow", "keras", "libtorch"))


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def refusal(environment: Mapping[str, str], folder: Path, *arguments: str, **settings: str) -> str:
    """What the server says when it does not start."""
    command = [sys.executable, "-m", "server", *arguments]
    result = subprocess.run(
        command,
        cwd=folder,
        env={**environment, "DATA_DIR": str(folder / "data"), **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_without_tokens_only_loopback(environment: Mapping[str, str], tmp_path: Path, host: str) -> None:
    assert "API_TOKENS" in refusal(environment, tmp_path, "--host", host)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_missing_model_stops_the_start_and_says_what_to_do(
    environment: Mapping[str, str], tmp_path: Path, workers: str
) -> None:
    message = refusal(environment, tmp_path, "--workers", workers, MODELS_DIR=str(tmp_path / "none"))
    assert "python -m convert fetch" in message


def test_a_damaged_model_stops_the_start_and_says_what_to_do(
    environment: Mapping[str, str], models_dir: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(models_dir, models)
    damaged = models / "sface.onnx"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    message = refusal(environment, tmp_path, MODELS_DIR=str(models))
    assert "sface.onnx" in message
    assert "python -m convert fetch" in message


def test_a_wrong_setting_is_named_without_its_value(environment: Mapping[str, str], tmp_path: Path) -> None:
    message = refusal(environment, tmp_path, TOP_K="many-secrets")
    assert "TOP_K" in message
    assert "many-secrets" not in message


def test_a_provider_that_is_not_there_stops_the_start(environment: Mapping[str, str], tmp_path: Path) -> None:
    import onnxruntime

    if "OpenVINOExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has OpenVINO")
    assert "onnxruntime-openvino" in refusal(environment, tmp_path, EXECUTION_PROVIDER="openvino")


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT] * 2], ids=["SIGTERM", "Ctrl-C twice"])
def test_a_signal_stops_the_server_and_its_postgres(start: Any, tmp_path: Path, signals: list[int]) -> None:
    with start(DATA_DIR=str(tmp_path / "data")) as service:
        pid = int((tmp_path / "data" / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
        postmaster = psutil.Process(pid)
        assert is_alive(postmaster)
        for number in signals:
            service.process.send_signal(number)
        assert service.process.wait(60) == 0
    assert not is_alive(postmaster)
    assert "Traceback" not in service.log.read_text()


def test_a_port_that_is_taken_is_an_error(environment: Mapping[str, str], newcomer: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server", "--port", str(newcomer.client.base_url.port)]
    settings = {**environment, "DATA_DIR": str(tmp_path / "data"), "VECTOR_DB_ENABLED": "false"}
    result = subprocess.run(
        command, cwd=tmp_path, env=settings, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode != 0
    assert "address already in use" in result.stderr.lower()
