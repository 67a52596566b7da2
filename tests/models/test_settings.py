"""Settings that are wrong or cannot be read end every command with a sentence, not with a traceback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from convert.__main__ import main as convert
from matchers.__main__ import main as matchers
from models.__main__ import main as models
from models.errors import SettingsError
from models.settings import read_settings
from runtime.__main__ import main as runtime
from server.command import main as server

COMMANDS: list[tuple[Callable[[Sequence[str]], int], list[str]]] = [
    (convert, ["fetch"]),
    (matchers, ["status"]),
    (models, ["list"]),
    (runtime, ["profile", "group.jpg"]),
    (server, ["doctor"]),
]


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"TOP_K=0", "TOP_K"), (b"DEFAULT_DOMAIN=caf\xe9", ".env is no text in UTF-8")],
    ids=["wrong", "unreadable"],
)
@pytest.mark.parametrize(("main", "arguments"), COMMANDS, ids=["convert", "matchers", "models", "runtime", "server"])
def test_every_command_says_what_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    main: Callable[[Sequence[str]], int],
    arguments: list[str],
    content: bytes,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TOP_K", "DEFAULT_DOMAIN", "MODELS_DIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_bytes(content)
    assert main(arguments) == 2
    assert told in capsys.readouterr().err


def test_no_value_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATE_LIMIT", "s3cret")
    with pytest.raises(SettingsError, match="RATE_LIMIT") as caught:
        read_settings()
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
