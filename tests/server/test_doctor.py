from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.settings import Settings
from server.command import main

Found = dict[str, tuple[str, str]]
"""Status and detail by part."""


def by_part(output: str) -> Found:
    return {finding["part"]: (finding["status"], finding["detail"]) for finding in json.loads(output)}


@pytest.fixture
def surroundings(models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default settings, without PostgreSQL, over a ``DATA_DIR`` of its own."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELS_DIR", str(models_dir))
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("EXECUTION_PROVIDER", "cpu")
    monkeypatch.setenv("VECTOR_DB_ENABLED", "false")


@pytest.fixture
def doctor(
    surroundings: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Found]]:
    """Runs ``doctor --json`` with further settings: exit status, and what was found."""

    def run(**settings: str) -> tuple[int, Found]:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        status = main(["doctor", "--json"])
        return status, by_part(capsys.readouterr().out)

    return run


def test_a_healthy_machine_has_nothing_to_report(surroundings: None) -> None:
    command = [sys.executable, "-m", "server", "doctor", "--json"]
    environment = {**os.environ, "VECTOR_DB_ENABLED": "true"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr
    status, found = result.returncode, by_part(result.stdout)
    assert status == 0
    assert {status for status, _ in found.values()} == {"ok"}
    assert set(found) >= {"data folder", "disk", "tokens", "detector retinaface", "embedder sface", "PostgreSQL"}


def test_a_detector_without_landmarks_for_an_embedder_that_needs_them_is_found(doctor: Any) -> None:
    status, found = doctor(DETECTOR="haar")
    assert found["detector haar"][0] == "ok"
    assert "built in" in found["detector haar"][1]
    assert status == 1
    assert "DETECTOR=retinaface" in found["models"][1]


def test_a_missing_model_is_named_with_the_command_that_gets_it(doctor: Any, tmp_path: Path) -> None:
    status, found = doctor(MODELS_DIR=str(tmp_path / "none"))
    assert status == 1
    assert found["embedder sface"][0] == "problem"
    assert "python -m convert fetch" in found["embedder sface"][1]


def test_a_damaged_model_is_found(doctor: Any, models_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(models_dir, tmp_path / "models")
    with (copy / "sface.onnx").open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(b"\xff" * 8)
    status, found = doctor(MODELS_DIR=str(copy))
    assert (status, found["embedder sface"][0]) == (1, "problem")


def test_a_database_that_is_away_is_found(doctor: Any) -> None:
    url = "postgresql://nobody:hidden@127.0.0.1:1/none"
    status, found = doctor(VECTOR_DB_ENABLED="true", DATABASE_URL=url, PGVECTOR_TIMEOUT="2")
    assert (status, found["PostgreSQL"][0]) == (1, "problem")
    assert "hidden" not in found["PostgreSQL"][1]


def test_a_corrupt_gallery_and_a_wrong_token_file_are_found(doctor: Any, tmp_path: Path) -> None:
    gallery = tmp_path / "data" / "galleries" / "d"
    gallery.mkdir(parents=True)
    name = "ds_model_sface_detector_retinaface_aligned_normalization_base_expand_0.pkl"
    (gallery / name).write_bytes(b"\x80\x04nothing")
    (tmp_path / "tokens.toml").write_text("[[token]]\n")
    status, found = doctor(API_TOKENS_FILE=str(tmp_path / "tokens.toml"))
    assert status == 1
    assert found["PKL galleries"][0] == "problem"
    assert "tokens.toml, token 1" in found["tokens"][1]


def test_a_gallery_folder_open_to_everybody_is_a_warning(doctor: Any, tmp_path: Path) -> None:
    (tmp_path / "data" / "galleries").mkdir(parents=True)
    (tmp_path / "data" / "galleries").chmod(0o755)
    status, found = doctor()
    assert (status, found["data folder"][0]) == (0, "warning")
    assert "chmod" in found["data folder"][1]


def test_a_provider_that_cannot_load_is_found(doctor: Any) -> None:
    status, found = doctor(EXECUTION_PROVIDER="cuda")
    provider, detail = found["execution provider"]
    assert (status, provider) in {(1, "problem"), (0, "ok")}
    assert "CUDAExecutionProvider" in detail
