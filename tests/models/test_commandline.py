"""What all command lines do alike, in real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

EVERY = ["convert", "matchers", "models", "runtime", "server"]
READS_SETTINGS = {
    "convert": ["fetch"],
    "matchers": ["status"],
    "models": ["list"],
    "runtime": ["profile", "picture.jpg"],
    "server": ["doctor"],
}
Start = Any


@pytest.fixture
def start(plain_environment: Mapping[str, str], tmp_path: Path) -> Start:
    """Starts Python with these arguments in an empty folder."""

    def started(*arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**plain_environment, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return started


@pytest.mark.parametrize(
    "command", [["models", "list"], ["models", "list", "--json"], ["server", "doctor"], ["server", "doctor", "--json"]]
)
def test_a_reader_that_has_seen_enough_hears_no_complaint(start: Start, command: list[str]) -> None:
    process = start("-m", *command)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


@pytest.mark.parametrize("module", EVERY)
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"TOP_K=many\n", "TOP_K"),
        (b"\xef\xbb\xbfTOP_K=many\n", "TOP_K"),
        ("TOP_K=3\n".encode("utf-16"), ".env is no text in UTF-8"),
    ],
    ids=["a wrong value", "after a byte order mark", "UTF-16"],
)
def test_a_wrong_setting_in_the_file_is_one_clear_line(
    start: Start, tmp_path: Path, module: str, content: bytes, complaint: str
) -> None:
    (tmp_path / ".env").write_bytes(content)
    output, errors = start("-m", module, *READS_SETTINGS[module]).communicate()
    assert output == b""
    assert complaint in errors.decode()
    assert errors.count(b"\n") == 1


def ended(start: Start, main: str, **settings: str) -> tuple[int, bytes, bytes]:
    """Exit status and output of a command whose ``main`` is given."""
    code = f"import json, os, signal, sys\nfrom models.commandline import finish\nsys.exit(finish(lambda: {main}))"
    process = start("-c", code, **settings)
    output, errors = process.communicate()
    return process.returncode, output, errors


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_stays_json_on_a_terminal_that_lacks_letters(start: Start, encoding: str) -> None:
    names = ["Đorđe", "Amélie", "王小明", "\N{GRINNING FACE}"]
    printed = f"print(json.dumps({names!a}, ensure_ascii=False)) or 0"
    status, output, errors = ended(start, printed, PYTHONIOENCODING=encoding)
    assert (status, errors) == (0, b"")
    assert json.loads(output.decode(encoding)) == names


def test_ctrl_c_ends_a_command_without_a_trace(start: Start) -> None:
    assert ended(start, "os.kill(os.getpid(), signal.SIGINT) or signal.pause()") == (130, b"", b"")


def test_a_full_disk_is_named(start: Start) -> None:
    status, _, errors = ended(start, "os.dup2(os.open('/dev/full', os.O_WRONLY), 1) and print('x') or 0")
    assert (status, errors) == (1, b"input or output: No space left on device\n")


@pytest.mark.parametrize("port", ["65536", "99999", "-1", "some"])
def test_a_port_that_is_none_is_refused(start: Start, port: str) -> None:
    process = start("-m", "server", "--port", port)
    assert f"'{port}' is no port" in process.communicate(timeout=60)[1].decode()
    assert process.returncode == 2
