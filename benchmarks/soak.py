"""Load and soak: clients that never rest, every answer compared with the one that the same picture got alone.

``python -m benchmarks.soak 30`` runs 30 minutes; ``--requests 20000`` stops after so many. Prints a table, writes
``figures.json`` and, where matplotlib is installed, ``soak.png`` (memory, latency and queue over time).
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

from matchers.demo import demo_picture

DOMAIN = "demo"
WARM_UP = 0.1
SAMPLE_SECONDS = 1.0
# The last digits of a distance depend on the batch that a face was embedded in.
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the service: seconds since the start, bytes of all its processes, calls that run or wait."""

    at: float
    memory: int
    pending: float


@dataclass(slots=True)
class Run:
    """What was seen."""

    finished: list[tuple[float, float]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when an answer was wrong or a 5xx, a worker was restarted, or memory grew by more than
    ``--growth``."""
    options = _parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, _service(options, Path(folder)) as (url, process):
        pictures = _pictures()
        with httpx.Client(timeout=60) as client:
            expected = [_reduced(_ask(client, url, picture)) for picture in pictures]
        run = _load(options, url, process, pictures, expected)
        alive = {child.pid for child in process.children()} == options.children
    figures = _figures(run, alive)
    (options.output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    _print(figures)
    _plot(run, options.output / "soak.png")
    grown = figures["memory_growth"] > options.growth
    return int(bool(run.wrong) or grown or not alive or any(code >= 500 for code in run.statuses))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n\n")[0])
    parser.add_argument("minutes", type=float, nargs="?", default=60.0, help="how long at most (default: 60)")
    parser.add_argument("--requests", type=int, default=10**9, help="how many at most")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--growth", type=float, default=0.05, help="largest growth of memory after warm-up (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("build/soak"))
    return parser.parse_args(arguments)


@contextlib.contextmanager
def _service(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    models = os.environ.get("MODELS_DIR", str(Path("data/models").resolve()))
    environment = {**os.environ, "DATA_DIR": str(folder / "data"), "MODELS_DIR": models, "DRAIN_SECONDS": "0"}
    command = [sys.executable, "-m", "server", "--port", str(port), "--workers", str(options.workers)]
    with (options.output / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)  # noqa: S603
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health/ready").json()["status"] == "ready":
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not start; see {options.output / 'server.log'}")
            time.sleep(0.2)
        time.sleep(3)
        watched = psutil.Process(process.pid)
        options.children = {child.pid for child in watched.children()}
        yield url, watched
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _pictures() -> list[bytes]:
    """The demo picture whole and in parts, with six people, one or nobody, in several sizes and formats, turned by
    EXIF, and two that cannot be read."""
    path = demo_picture()
    if path is None:
        raise SystemExit("the demo picture is not installed: run `make run` once")
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


def _load(
    options: argparse.Namespace,
    url: str,
    process: psutil.Process,
    pictures: list[bytes],
    expected: list[dict[str, Any]],
) -> Run:
    run, start = Run(), time.monotonic()
    turns, lock = itertools.count(), threading.Lock()
    end = start + options.minutes * 60

    def client() -> None:
        with httpx.Client(timeout=120) as connection:
            while (turn := next(turns)) < options.requests and time.monotonic() < end:
                which = turn % len(pictures)
                began = time.monotonic()
                answer = _ask(connection, url, pictures[which])
                ended = time.monotonic()
                with lock:
                    run.statuses[answer.status_code] += 1
                    reduced = _reduced(answer)
                    if answer.status_code < 500:
                        run.finished.append((ended - start, ended - began))
                        if not _same(reduced, expected[which]):
                            run.wrong.append(f"picture {which}: {json.dumps(reduced)[:300]}")
                    if answer.status_code == 200:
                        run.modes[reduced["mode"]] += 1
                if answer.status_code == 503:
                    time.sleep(float(answer.headers.get("Retry-After", 1)))

    threads = [threading.Thread(target=client, daemon=True) for _ in range(options.clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        run.samples.append(_sample(url, process, time.monotonic() - start))
        if sys.stderr.isatty():
            print(f"\r{sum(run.statuses.values())} requests", end="", file=sys.stderr)
        time.sleep(SAMPLE_SECONDS)
    return run


def _sample(url: str, process: psutil.Process, at: float) -> Sample:
    memory = 0
    for child in process.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            memory += child.memory_info().rss
    lines = httpx.get(f"{url}/metrics", timeout=60).text.splitlines()
    pending = sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("face_pending{"))
    return Sample(at, memory, pending)


def _figures(run: Run, alive: bool) -> dict[str, Any]:
    latencies = np.array([seconds for _, seconds in run.finished]) * 1000
    memory = [sample.memory for sample in run.samples]
    warm = memory[max(1, int(len(memory) * WARM_UP)) :] or memory
    span = max(at for at, _ in run.finished)
    return {
        "requests": sum(run.statuses.values()),
        "statuses": {str(code): count for code, count in sorted(run.statuses.items())},
        "modes": dict(run.modes),
        "wrong_answers": len(run.wrong),
        "first_wrong": run.wrong[:3],
        "workers_never_restarted": alive,
        "per_second": round(len(latencies) / span, 1),
        "latency_ms": {f"p{q}": round(float(np.percentile(latencies, q)), 1) for q in (50, 95, 99, 100)},
        "memory_mib": {"after_warm_up": round(warm[0] / 2**20), "end": round(warm[-1] / 2**20)},
        "memory_growth": round(float(np.median(warm[-5:]) / np.median(warm[:5]) - 1), 4),
        "pending_max": max(sample.pending for sample in run.samples),
    }


def _print(figures: dict[str, Any]) -> None:
    print("| figure | value |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {value} |")


def _plot(run: Run, path: Path) -> None:
    try:
        from matplotlib import pyplot  # noqa: PLC0415
    except ImportError:
        print("no plot: matplotlib is not installed", file=sys.stderr)
        return
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
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
