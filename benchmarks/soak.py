"""Load and soak: clients that never rest, every answer compared with the one that the same picture got alone.

``python -m benchmarks.soak 30`` runs 30 minutes; ``--requests 20000`` stops after so many. Then more clients come
than the queue takes, for ``--overload-seconds``. Writes ``soak.md`` and, where matplotlib is installed, ``soak.png``:
memory, latency and queue over time. What the server says is left in ``build/soak.log``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers import group_picture
from benchmarks.report import RESULTS, Report, percentile

DOMAIN = "demo"
LOG = Path("build/soak.log")
WARM_UP = 0.1
SAMPLE_SECONDS = 1.0
# The last digits of a distance depend on the batch that a face was embedded in.
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the service: seconds since the start, bytes of all its workers, calls that run or wait."""

    at: float
    memory: int
    pending: float


@dataclass(frozen=True, slots=True)
class Watched:
    """The service: its address, its first process, and its workers as they were at the start."""

    url: str
    process: psutil.Process
    workers: frozenset[int]

    def never_restarted(self) -> bool:
        """Whether every worker of the start is there, and no other."""
        return frozenset(child.pid for child in self.process.children()) == self.workers

    def sample(self, at: float) -> Sample:
        """How it is now."""
        memory = 0
        for child in self.process.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                memory += child.memory_info().rss
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        pending = sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("face_pending{"))
        return Sample(at, memory, pending)


@dataclass(slots=True)
class Run:
    """What was seen.

    Attributes:
        finished: moment and seconds of every answer that was no 503.
        unpaced: 503 without ``Retry-After``.
    """

    finished: list[tuple[float, float]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    unpaced: int = 0
    samples: list[Sample] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Answers from 500 on, except 503."""
        return sum(count for status, count in self.statuses.items() if status >= 500 and status != 503)

    def row(self, clients: int) -> dict[str, Any]:
        """For the table."""
        seconds = [took for _, took in self.finished]
        return {
            "clients": clients,
            "requests": sum(self.statuses.values()),
            "answers/s": round(len(seconds) / max(at for at, _ in self.finished), 1),
            "p50, s": percentile(seconds, 50),
            "p95, s": percentile(seconds, 95),
            "p99, s": percentile(seconds, 99),
            "longest, s": max(seconds),
            "wrong": len(self.wrong),
            "503": self.statuses[503],
            "other 5xx": self.failed,
            "queue at most": round(max(sample.pending for sample in self.samples)),
        }

    def growth(self) -> tuple[float, float, float]:
        """MiB after the warm-up and at the end, and the share by which they grew; medians of five samples."""
        memory = [sample.memory / 2**20 for sample in self.samples]
        warm = memory[int(len(memory) * WARM_UP) :]
        first, last = float(np.median(warm[:5])), float(np.median(warm[-5:]))
        return first, last, last / first - 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when an answer was wrong or a 5xx (503 with ``Retry-After`` under overload excepted), a worker was
    restarted, or memory grew by more than ``--growth``."""
    options = _parse(arguments)
    report = Report(
        "soak",
        "POST /analyze under load",
        "Clients that never rest, mixed pictures of the demo domain (nobody to six faces, four formats, two that "
        f"cannot be read), dual mode, {options.workers} workers, and the clients on the same cores; every answer is "
        "compared with the one that the picture got alone. Then more clients than the queue takes, who wait as "
        "`Retry-After` says.",
    )
    with tempfile.TemporaryDirectory() as folder, _service(options.workers, Path(folder)) as service:
        pictures = _pictures()
        with httpx.Client(timeout=60) as client:
            expected = [_reduced(_ask(client, service.url, picture)) for picture in pictures]
        load = _Load(service, pictures, expected)
        steady = load.run(options.clients, options.minutes * 60, options.requests)
        report.add(steady.row(options.clients))
        over = load.run(options.overload, options.overload_seconds) if options.overload_seconds else None
        if over is not None:
            report.add(over.row(options.overload))
        unbroken = service.never_restarted()
    first, last, growth = steady.growth()
    report.remark(f"memory of all workers: {first:.0f} MiB after warm-up, {last:.0f} MiB at the end, {growth:+.1%}")
    report.remark(f"modes: {', '.join(f'{mode} {count}' for mode, count in steady.modes.items())}")
    report.remark("no worker was restarted" if unbroken else "a worker WAS RESTARTED")
    runs = [steady] if over is None else [steady, over]
    for text in itertools.islice(itertools.chain.from_iterable(run.wrong for run in runs), 5):
        report.remark(f"WRONG: {text}")
    if unpaced := sum(run.unpaced for run in runs):
        report.remark(f"{unpaced} answers were 503 WITHOUT Retry-After")
    folder = options.output or RESULTS
    report.finish(folder)
    if _plot(steady, folder / "soak.png"):
        with (folder / "soak.md").open("a") as file:
            file.write("\n![memory, latency and queue over time](soak.png)\n")
    broken = any(run.wrong or run.failed or run.unpaced for run in runs) or steady.statuses[503] > 0
    return int(broken or not unbroken or growth > options.growth)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("minutes", type=float, nargs="?", default=60.0, help="how long at most (default: 60)")
    parser.add_argument("--requests", type=int, default=10**9, help="how many at most")
    parser.add_argument("--clients", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--overload", type=int, default=400, help="clients of the second part (default: %(default)s)")
    parser.add_argument(
        "--overload-seconds", type=float, default=20.0, help="how long it lasts; 0: none (default: %(default)s)"
    )
    parser.add_argument(
        "--growth", type=float, default=0.05, help="largest growth of memory after warm-up (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write (default: benchmarks/results)")
    return parser.parse_args(arguments)


@contextlib.contextmanager
def _service(workers: int, folder: Path) -> Iterator[Watched]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    models = os.environ.get("MODELS_DIR", str(Path("data/models").resolve()))
    environment = {**os.environ, "DATA_DIR": str(folder / "data"), "MODELS_DIR": models, "DRAIN_SECONDS": "0"}
    command = [sys.executable, "-m", "server", "--port", str(port), "--workers", str(workers)]
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stderr=output)  # noqa: S603
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health/ready").json()["status"] == "ready":
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not start, see {LOG}")
            time.sleep(0.2)
        time.sleep(3)
        watched = psutil.Process(process.pid)
        yield Watched(url, watched, frozenset(child.pid for child in watched.children()))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _pictures() -> list[bytes]:
    """The demo picture whole and in parts, with six people, one or nobody, in several sizes and formats, turned by
    EXIF, and two that cannot be read."""
    path = group_picture()
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path} cannot be read")
    crops = [image[200:460, 400:640], image[100:500, 0:400], image[150:650, 700:1280], image[600:886, 0:300]]
    pictures = [cv2.imencode(".jpg", crop)[1].tobytes() for crop in crops]
    pictures.append(cv2.imencode(".png", crops[0])[1].tobytes())
    pictures.append(cv2.imencode(".webp", cv2.resize(crops[1], (320, 320)))[1].tobytes())
    pictures.append(cv2.imencode(".bmp", cv2.resize(crops[2], (290, 250)))[1].tobytes())
    pictures += [path.read_bytes(), _turned(crops[0]), pictures[0][:2000], b"no picture"]
    return pictures


def _turned(image: NDArray[np.uint8]) -> bytes:
    """A JPEG file that lies on its side and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.rot90(image)[..., ::-1]).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def _ask(client: httpx.Client, url: str, picture: bytes) -> httpx.Response:
    return client.post(f"{url}/analyze", params={"domain": DOMAIN}, files={"image": picture})


def _reduced(answer: httpx.Response) -> dict[str, Any]:
    """What must be the same each time."""
    body = {name: value for name, value in answer.json().items() if name != "timing_ms"}
    return {"http_status": answer.status_code, **body}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float | int) and isinstance(other, float | int) and not isinstance(one, bool):
        return abs(one - other) <= TOLERANCE
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


@dataclass(frozen=True, slots=True)
class _Load:
    service: Watched
    pictures: list[bytes]
    expected: list[dict[str, Any]]

    def run(self, clients: int, seconds: float, requests: int = 10**9) -> Run:
        run, start = Run(), time.monotonic()
        turns, lock = itertools.count(), threading.Lock()
        end = start + seconds

        def client() -> None:
            with httpx.Client(timeout=120) as connection:
                while (turn := next(turns)) < requests and time.monotonic() < end:
                    which = turn % len(self.pictures)
                    began = time.monotonic()
                    answer = _ask(connection, self.service.url, self.pictures[which])
                    with lock:
                        self._note(run, answer, which, (time.monotonic() - start, time.monotonic() - began))
                    if answer.status_code == 503:
                        time.sleep(float(answer.headers.get("Retry-After", 1)))

        threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            run.samples.append(self.service.sample(time.monotonic() - start))
            if sys.stderr.isatty():
                print(f"\r{sum(run.statuses.values())} requests", end="", file=sys.stderr)
            time.sleep(SAMPLE_SECONDS)
        return run

    def _note(self, run: Run, answer: httpx.Response, which: int, moment: tuple[float, float]) -> None:
        status = answer.status_code
        run.statuses[status] += 1
        if status == 503:
            run.unpaced += "Retry-After" not in answer.headers
            return
        run.finished.append(moment)
        reduced = _reduced(answer)
        if not _same(reduced, self.expected[which]):
            run.wrong.append(f"picture {which}: {json.dumps(reduced)[:300]}")
        if status == 200:
            run.modes[reduced["mode"]] += 1


def _plot(run: Run, path: Path) -> bool:
    try:
        from matplotlib import pyplot  # noqa: PLC0415
    except ImportError:
        print("no plot: matplotlib is not installed", file=sys.stderr)
        return False
    figure, axes = pyplot.subplots(3, 1, sharex=True, figsize=(9, 8), layout="constrained")
    times = [sample.at for sample in run.samples]
    axes[0].plot(times, [sample.memory / 2**20 for sample in run.samples])
    axes[0].set_ylabel("memory of all workers, MiB")
    axes[0].set_ylim(bottom=0)
    axes[1].plot(*zip(*sorted(run.finished), strict=True), ".", markersize=1, alpha=0.4)
    axes[1].set_ylabel("latency, s")
    axes[2].plot(times, [sample.pending for sample in run.samples])
    axes[2].set_ylabel("calls that run or wait")
    axes[2].set_xlabel("seconds")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return True


if __name__ == "__main__":
    sys.exit(main())
