"""Some seconds of what ``make fuzz`` does for a minute."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

if importlib.util.find_spec("atheris") is None:
    pytest.skip("atheris is not installed: it comes with '.[dev]' on Linux", allow_module_level=True)

from campaign import campaign


def test_no_input_breaks_the_readers(tmp_path: Path) -> None:
    assert campaign(tmp_path, 8) == {}
