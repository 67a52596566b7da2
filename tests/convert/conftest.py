"""Models fetched once by the real command, for the tests that look at them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder, its path with a space, filled by ``python -m convert fetch``."""
    folder = tmp_path_factory.mktemp("fetched") / "models folder"
    command = [sys.executable, "-m", "convert", "fetch", "--pack", "default", "--models-dir", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    return folder
