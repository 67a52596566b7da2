"""``POST /analyze`` of a real server: pictures a second and latency over clients and faces, dual against pkl_only.

python -m benchmarks.service [--seconds S] [--clients 1 2 4 8 16 32 64] [--faces 1 2 4 6 10 20 30]

Starts a server with the default pack, an embedded PostgreSQL and the demo domain in a scratch folder, on loopback.
Modes take turns on the same server, so that what disturbs one disturbs both. Clients share the cores with the server.
What dual costs one client at a time, ``python -m benchmarks.dual`` measures closer.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from benchmarks import peers
from benchmarks.report import RESULTS, Report, median, percentile
from models.settings import Settings
from runtime.decode import decode
from runtime.engine import open_engine
from runtime.faces import ImageArray

DOMAIN = "demo"
MODES = ("dual", "pkl_only")
TARGET_CLIENTS, TARGET_RATE, TARGET_SPREAD = 8, 25.0, 3.0
_BOUNDARY = "benchmark-boundary"
_ROUNDS = 3


@dataclass
class Load:
    """What clients saw in one mode: seconds of every answer, seconds measured, answers that were no 200."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    refused: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement (default: %(default)s)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--faces", type=int, nargs="+", default=[1, 2, 4, 6, 10, 20, 30])
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write (default: benchmarks/results)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as url:
        clients, missed = _over_clients(url, options)
        faces = _over_faces(url, options)
    clients.finish(options.output or RESULTS)
    faces.finish(options.output or RESULTS)
    return int(missed)


def _over_clients(url: str, options: argparse.Namespace) -> tuple[Report, bool]:
    report = Report(
        "service-clients",
        "POST /analyze over clients",
        f"Default pack, one face at 640 x 480, demo domain; clients that never rest, {_ROUNDS} rounds of "
        f"{options.seconds:g} s in each mode, in turn.",
    )
    body = _body(_grid(1, 640, 480))
    missed = False
    _measure(url, body, 4, 1.0)
    for count in options.clients:
        loads = {mode: Load() for mode in MODES}
        halves = []
        for _ in range(_ROUNDS):
            both = []
            for mode in MODES:
                _set_mode(url, mode)
                found = _measure(url, body, count, options.seconds, loads[mode])
                both.append(median(found))
            halves.append(both[0] / both[1])
        dual = loads["dual"]
        rate = len(dual.latencies) / dual.seconds
        p50, p95 = percentile(dual.latencies, 50), percentile(dual.latencies, 95)
        report.add({
            "clients": count, "dual, pictures/s": rate,
            "pkl_only, pictures/s": len(loads["pkl_only"].latencies) / loads["pkl_only"].seconds,
            "dual p50, ms": p50 * 1000, "dual p95, ms": p95 * 1000,
            "dual p99, ms": percentile(dual.latencies, 99) * 1000,
            "pkl_only p50, ms": percentile(loads["pkl_only"].latencies, 50) * 1000,
            "p50 dual / pkl_only": median(halves), "refused": dual.refused + loads["pkl_only"].refused,
        })  # fmt: skip
        if count == TARGET_CLIENTS:
            for text, holds in (
                (f"{count} clients: {rate:.1f} pictures/s, {TARGET_RATE:g}", rate >= TARGET_RATE),
                (f"{count} clients: p95 is {p95 / p50:.2f} p50, {TARGET_SPREAD:g}", p95 <= TARGET_SPREAD * p50),
            ):
                report.remark(f"{text} {'reached' if holds else 'MISSED'}")
                missed |= not holds
    report.plot("clients", ["dual, pictures/s", "pkl_only, pictures/s"], "pictures a second")
    report.plot("clients", ["dual p50, ms", "dual p95, ms", "pkl_only p50, ms"], "milliseconds")
    return report, missed


def _over_faces(url: str, options: argparse.Namespace) -> Report:
    report = Report(
        "service-faces",
        "POST /analyze over faces in the picture",
        "Default pack, 1280 x 960, demo domain, dual; one client, medians of what the answer's timing_ms says.",
    )
    _set_mode(url, "dual")
    for count in options.faces:
        body = _body(_grid(count, 1280, 960))
        latencies, stages, faces = [], [], 0
        end = time.monotonic() + options.seconds
        connection = _connect(url)
        while time.monotonic() < end or len(latencies) < 3:
            start = time.perf_counter()
            status, answer = _ask(connection, body)
            latencies.append((time.perf_counter() - start) * 1000)
            if status != 200:
                raise SystemExit(f"/analyze answered {status}")
            stages.append(answer["timing_ms"])
            faces = len(answer["faces"])
        named = ("decode", "detect", "align", "embed", "search_pkl", "search_pgvector")
        report.add({
            "faces": faces, "all, ms": median(latencies),
            **{f"{stage}, ms": median(timing[stage] for timing in stages) for stage in named},
        })  # fmt: skip
    report.plot("faces", ["all, ms", "detect, ms", "embed, ms", "search_pgvector, ms"], "milliseconds")
    return report


def _measure(url: str, body: bytes, clients: int, seconds: float, into: Load | None = None) -> list[float]:
    """Seconds of each answer that ``clients`` got in ``seconds``."""
    found, refused = [], []
    begin = threading.Barrier(clients + 1)
    end = [0.0]

    def client() -> None:
        connection = _connect(url)
        begin.wait()
        while time.perf_counter() < end[0]:
            start = time.perf_counter()
            status, _ = _ask(connection, body, read=False)
            (found if status == 200 else refused).append(time.perf_counter() - start)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    end[0] = time.perf_counter() + seconds
    start = time.perf_counter()
    begin.wait()
    for thread in threads:
        thread.join()
    if into is not None:
        into.latencies += found
        into.seconds += time.perf_counter() - start
        into.refused += len(refused)
    return found


def _ask(
    connection: http.client.HTTPConnection, body: bytes, read: bool = True
) -> tuple[int, dict[str, dict[str, float]]]:
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    connection.request("POST", f"/analyze?domain={DOMAIN}", body, headers)
    answer = connection.getresponse()
    content = answer.read()
    return answer.status, json.loads(content) if read else {}


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=120)


def _set_mode(url: str, mode: str) -> None:
    connection = _connect(url)
    body = json.dumps({"mode": mode, "force": True})
    connection.request("PUT", f"/domains/{DOMAIN}/mode", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"the mode cannot be set: {answer.status} {answer.read()[:300]!r}")
    answer.read()
    connection.close()


def _body(image: ImageArray) -> bytes:
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'.encode()
    return head + jpeg + f"\r\n--{_BOUNDARY}--\r\n".encode()


def _grid(count: int, width: int, height: int) -> ImageArray:
    """``count`` faces of the group picture in rows on grey."""
    image = decode(peers.group_picture().read_bytes())
    boxes = open_engine(Settings(execution_provider="cpu")).detector.detect(image).boxes.astype(int)
    columns = int(np.ceil(np.sqrt(count * width / height)))
    rows = -(-count // columns)
    cell = (width // columns, height // rows)
    canvas = np.full((height, width, 3), 127, np.uint8)
    for number in range(count):
        x, y, w, h = boxes[number % len(boxes)]
        cut = image[max(y - h // 3, 0) : y + h + h // 3, max(x - w // 3, 0) : x + w + w // 3]
        factor = min(cell[0] / cut.shape[1], cell[1] / cut.shape[0], 2.0)
        cut = cv2.resize(cut, None, fx=factor * 0.95, fy=factor * 0.95, interpolation=cv2.INTER_AREA)
        left, top = number % columns * cell[0], number // columns * cell[1]
        canvas[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return canvas


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[str]:
    """A server that is ready, its data in ``folder``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {field.upper() for field in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name.upper() not in own}
    environment |= {"MODELS_DIR": str(Settings().models_path.resolve()), "DATA_DIR": str(folder), "DRAIN_SECONDS": "0"}
    environment["EXECUTION_PROVIDER"] = "cpu"
    peers.WORK.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "server", "--port", str(port)]
    with (peers.WORK / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not _is_ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not start; see {peers.WORK / 'server.log'}")
            time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _is_ready(url: str) -> bool:
    connection = _connect(url)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        return bool(json.loads(answer.read())["status"] == "ready")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
