"""ArcFace weights that nobody named: where DeepFace keeps them, else downloaded, else it is said where to get them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from convert import defaults
from convert.defaults import default_weights
from convert.errors import WeightsError
from models.catalog import Catalog, UrlSource, load_catalog

DATA = b"weights of nobody" * 1000


def ignore(*_arguments: Any) -> None:
    """Say nothing."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DEEPFACE_HOME", raising=False)
    return tmp_path / "home"


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The catalog's download on this machine; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(DATA)))
            self.end_headers()
            self.wfile.write(DATA)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield f"http://127.0.0.1:{server.server_port}/arcface_weights.h5"
        server.shutdown()


def served_by(url: str, sha256: str) -> Catalog:
    entry = load_catalog().find("deepface-arcface")
    return Catalog((replace(entry, sources=(UrlSource(url, sha256, "arcface_weights.h5"),)),))


@pytest.mark.parametrize("variable", ["HOME", "DEEPFACE_HOME"])
def test_what_deepface_has_is_used(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    folder = home if variable == "HOME" else tmp_path / "elsewhere"
    monkeypatch.setenv(variable, str(folder))
    path = folder / ".deepface" / "weights" / "arcface_weights.h5"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    said: list[str] = []
    assert default_weights(tmp_path / "models", True, said.append, ignore) == path
    assert said == [f"using {path}"]


def test_what_nobody_has_is_downloaded_and_checked(
    home: Path, tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = hashlib.sha256(DATA).hexdigest()
    monkeypatch.setattr(defaults, "load_catalog", lambda: served_by(mirror, sha256))
    seen: list[tuple[str, int, int]] = []
    path = default_weights(tmp_path / "models", False, ignore, lambda *step: seen.append(step))
    assert path.read_bytes() == DATA
    assert seen[-1] == ("arcface_weights.h5", len(DATA), len(DATA))


def test_a_wrong_download_says_both_sums_and_leaves_nothing(
    home: Path, tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defaults, "load_catalog", lambda: served_by(mirror, "0" * 64))
    with pytest.raises(WeightsError, match=f"expected sha256 {'0' * 64}, got {hashlib.sha256(DATA).hexdigest()}"):
        default_weights(tmp_path / "models", False, ignore, ignore)
    assert [path.name for path in (tmp_path / "models").rglob("*") if path.is_file()] == [".lock"]


def test_without_a_download_it_is_said_where_to_get_and_where_to_put_them(home: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        default_weights(tmp_path / "models", True, ignore, ignore)
    said = str(caught.value)
    assert f"is not at {home}/.deepface/weights/arcface_weights.h5" in said
    assert "--offline forbids it" in said
    assert "release v1.0 of serengil/deepface_models" in said
    assert "put it there or name it with --weights" in said
