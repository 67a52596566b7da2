from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from models.settings import Settings
from runtime.engine import open_engine
from runtime.errors import ProviderError
from runtime.providers import BF16, CPU, CUDA, OPENVINO, choose_provider, missing_library, processor_flags


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


@needs_cpu_build
@pytest.mark.parametrize("provider", ["auto", "cpu"])
def test_bfloat16_needs_openvino(models_dir: Path, provider: str) -> None:
    settings = Settings(
        _env_file=None,
        models_dir=models_dir,
        execution_provider=provider,  # type: ignore[arg-type]
        inference_precision="bf16",
    )
    with pytest.raises(ProviderError, match=r"EXECUTION_PROVIDER=openvino.*INFERENCE_PRECISION=fp32"):
        open_engine(settings)


def test_instructions_are_those_of_the_first_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert processor_flags(tmp_path / "cpuinfo") == {"fpu", "avx512_bf16"}
    assert processor_flags(tmp_path / "none") == frozenset()


@pytest.mark.skipif(OPENVINO not in ort.get_available_providers(), reason="onnxruntime-openvino is not installed")
@pytest.mark.skipif(not BF16 & processor_flags(), reason="the processor has no bfloat16")
def test_openvino_in_bfloat16_keeps_galleries_comparable(models_dir: Path, portraits: list[bytes]) -> None:
    rows = {}
    for precision in ("fp32", "bf16"):
        settings = Settings(
            _env_file=None,
            models_dir=models_dir,
            execution_provider="openvino",
            inference_precision=precision,  # type: ignore[arg-type]
        )
        engine = open_engine(settings)
        assert engine.precision == precision
        rows[precision] = np.concatenate([engine.analyze(picture).embeddings for picture in portraits])
    cosines = (rows["fp32"] * rows["bf16"]).sum(axis=1)
    assert cosines.min() > 0.9998
    assert not np.array_equal(rows["fp32"], rows["bf16"])


@pytest.mark.skipif(CUDA not in ort.get_available_providers(), reason="onnxruntime-gpu is not installed")
def test_cuda_runs_or_names_the_missing_library(model: Path) -> None:
    reason = missing_library(CUDA)
    if reason is None:
        assert choose_provider("cuda", model) == CUDA
    else:
        with pytest.raises(ProviderError, match=r"lib\w+\.so"):
            choose_provider("cuda", model)
