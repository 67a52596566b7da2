"""The running service against its own description: requests that schemathesis makes up from ``/openapi.json``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("schemathesis")


def test_every_answer_is_one_that_the_description_allows(start: Any, tmp_path: Path) -> None:
    with start(DATA_DIR=str(tmp_path / "data")) as service:
        url = f"{service.client.base_url}/openapi.json"
        # No schema can say which bytes are a picture with one face, so valid requests may well be refused.
        command = ["run", url, "--max-examples", "8", "--generation-deterministic", "--no-color"]
        command += ["--exclude-checks", "positive_data_acceptance"]
        run = subprocess.run(
            [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", *command],
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "schema_hooks", "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
        assert re.search(r"Selected: (\d+)/\1\n +Tested: \1\n", run.stdout), "an operation was left out"
        assert service.process.poll() is None
