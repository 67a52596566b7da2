"""ONNX Runtime sends nothing to its maker, and keeps no id of the machine for that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

OPEN = "import onnxruntime, sys; onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
# What turns it off as well, so that machines which build software tell nothing.
OFF = frozenset({"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME"})


@pytest.mark.parametrize("package", ["models.verify", "runtime.session", "convert.parity", "server.command"])
def test_no_id_is_kept_and_no_queue_of_what_to_send(
    tmp_path: Path, plain_environment: Mapping[str, str], models_dir: Path, package: str
) -> None:
    kept = {name: value for name, value in plain_environment.items() if name not in OFF and not name.startswith("CI_")}
    environment = {**kept, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", f"import {package}; {OPEN}", str(models_dir / "sface.onnx")]
    subprocess.run(command, env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []
