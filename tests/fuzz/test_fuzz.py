"""Some seconds of what ``make fuzz`` does for a minute."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("atheris") is None:
    pytest.skip("atheris is not installed: it comes with '.[dev]' on Linux", allow_module_level=True)

CAMPAIGN = Path(__file__).with_name("campaign.py")


def test_no_input_breaks_the_readers() -> None:
    """In a process between: libFuzzer counts the memory that the process which starts it ever held as its own."""
    environment = {**os.environ, "PYTHONPATH": str(CAMPAIGN.parents[2])}
    result = subprocess.run(
        [sys.executable, CAMPAIGN, "8"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "no input broke a reader\n"
