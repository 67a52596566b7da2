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


def test_a_full_disk_leaves_the_old_file_and_no_part_of_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    write_atomic(path, b"old")
    code = (
        "import resource, signal, sys; from pathlib import Path; from convert.write import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_atomic(Path(sys.argv[1]), bytes(5000))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "x.onnx cannot be written" in result.stderr
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("x.onnx", b"old")]


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").mkdir()
    with pytest.raises(ConvertError, match="cannot be written"):
        write_atomic(tmp_path / "x.onnx", b"model")
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx"]
