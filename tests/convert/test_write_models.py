"""Model files appear complete or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from convert.errors import ConvertError
from convert.write import write_atomic, write_model
from models.store import is_intact, sidecar


def test_a_model_stands_beside_its_sum(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.onnx"
    assert write_model(path, b"model") == hashlib.sha256(b"model").hexdigest()
    assert is_intact(path)
    checked = subprocess.run(["sha256sum", "-c", sidecar(path).name], cwd=path.parent, check=False)
    assert checked.returncode == 0


def on_a_disk_of(size: int, call: str, path: Path) -> subprocess.CompletedProcess[str]:
    """``call`` about ``path`` in a process whose files may have so many bytes."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from convert.write import write_atomic, write_model\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sys.dont_write_bytecode = True\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
        f"path = Path(sys.argv[1]); {call}"
    )
    return subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)


def test_a_full_disk_leaves_the_old_file_and_no_part_of_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    write_atomic(path, b"old")
    result = on_a_disk_of(1000, "write_atomic(path, bytes(5000))", path)
    assert "x.onnx cannot be written" in result.stderr
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("x.onnx", b"old")]


def test_a_disk_that_is_full_before_the_sum_is_written_keeps_no_model(tmp_path: Path) -> None:
    result = on_a_disk_of(20, "write_model(path, b'model')", tmp_path / "x.onnx")
    assert "x.onnx.sha256 cannot be written" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").mkdir()
    with pytest.raises(ConvertError, match="cannot be written"):
        write_atomic(tmp_path / "x.onnx", b"model")
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx"]
