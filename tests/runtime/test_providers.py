from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

from runtime.errors import ProviderError
from runtime.providers import CPU, CUDA, OPENVINO, choose_provider, missing_library


@pytest.fixture
def model(models_dir: Path) -> Path:
    return models_dir / "sface.onnx"


needs_cpu_build = pytest.mark.skipif(
    CUDA in ort.get_available_providers() or OPENVINO in ort.get_available_providers(),
    reason="speaks of the plain onnxruntime package; another build is installed",
)


def test_cpu_is_always_there(model: Path) -> None:
    assert choose_provider("cpu", model) == CPU


@needs_cpu_build
def test_auto_takes_the_cpu_and_logs_why_nothing_better(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert choose_provider("auto", model) == CPU
    assert "onnxruntime-gpu is not installed" in caplog.text
    assert "onnxruntime-openvino is not installed" in caplog.text


@needs_cpu_build
@pytest.mark.parametrize(("name", "package"), [("cuda", "onnxruntime-gpu"), ("openvino", "onnxruntime-openvino")])
def test_an_explicit_provider_that_is_not_installed_stops(model: Path, name: str, package: str) -> None:
    with pytest.raises(ProviderError, match=package):
        choose_provider(name, model)  # type: ignore[arg-type]


@needs_cpu_build
def test_the_server_does_not_start_on_a_provider_that_is_not_there(models_dir: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "EXECUTION_PROVIDER": "cuda",
        "MODELS_DIR": str(models_dir),
        "DATA_DIR": str(tmp_path),
        "VECTOR_DB_ENABLED": "false",
    }
    command = [sys.executable, "-m", "server", "--port", "0"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "onnxruntime-gpu" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(CUDA not in ort.get_available_providers(), reason="onnxruntime-gpu is not installed")
def test_cuda_runs_or_names_the_missing_library(model: Path) -> None:
    reason = missing_library(CUDA)
    if reason is None:
        assert choose_provider("cuda", model) == CUDA
    else:
        with pytest.raises(ProviderError, match=r"lib\w+\.so"):
            choose_provider("cuda", model)
