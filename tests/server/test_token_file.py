"""``python -m server token`` adds to a file that others read and write as well."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.command import main
from server.token_file import add_token
from server.tokens import new_token, read_tokens


def made(path: Path, name: str) -> int:
    return main(["token", "--name", name, "--file", str(path)])


def test_the_file_keeps_its_owner_its_mode_and_its_link(tmp_path: Path) -> None:
    file, link = tmp_path / "tokens.toml", tmp_path / "link.toml"
    link.symlink_to(file)
    assert made(file, "app") == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 65534, 65534)
    before = file.stat()
    assert made(link, "office") == 0
    after = file.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert link.is_symlink()
    assert [token.name for token in read_tokens(file)] == ["app", "office"]


def test_of_several_at_once_none_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    names = [f"client-{number}" for number in range(20)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: add_token(file, new_token(name, ["analyze"], None, 0)[1]), names))
    assert {token.name for token in read_tokens(file)} == set(names)


@pytest.mark.parametrize("content", [b"# caf\xe9\n", b"[[token]]\n", b"token = 1\n"])
def test_a_file_that_is_none_of_tokens_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    file = tmp_path / "tokens.toml"
    file.write_bytes(content)
    assert made(file, "app") == 2
    assert str(file) in capsys.readouterr().err
    assert file.read_bytes() == content
    assert made(tmp_path / "missing" / "tokens.toml", "app") == 2
