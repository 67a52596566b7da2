"""``POST /analyze`` of a real server: pictures a second and latency over clients and faces, dual against pkl_only.

python -m benchmarks.service [--seconds S] [--clients 1 2 4 8 16 32 64] [--faces 1 2 4 6 10 20 30]

Starts a server with the default pack, an embedded PostgreSQL and the demo domain in a scratch folder, on loopback.
Modes take turns on the same server, so that what disturbs one disturbs both. Clients share the cores with the server.
What dual costs one client at a time, ``python -m benchmarks.dual`` measures closer.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from benchmarks import peers
from benchmarks.report import RESULTS, Report, median, percentile
from benchmarks.serving import analyze, connect, form, served, set_mode
from models.settings import Settings
from runtime.decode import decode
from runtime.engine import open_engine
from runtime.faces import ImageArray

DOMAIN = "demo"
MODES = ("dual", "pkl_only")
TARGET_CLIENTS, TARGET_RATE, TARGET_SPREAD = 8, 25.0, 3.0
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
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as server:
        clients, missed = _over_clients(server.url, options)
        faces = _over_faces(server.url, options)
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
                set_mode(url, DOMAIN, mode)
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
    set_mode(url, DOMAIN, "dual")
    for count in options.faces:
        body = _body(_grid(count, 1280, 960))
        latencies, stages, faces = [], [], 0
        end = time.monotonic() + options.seconds
        connection = connect(url)
        while time.monotonic() < end or len(latencies) < 3:
            start = time.perf_counter()
            status, content = analyze(connection, body, DOMAIN)
            latencies.append((time.perf_counter() - start) * 1000)
            if status != 200:
                raise SystemExit(f"/analyze answered {status}")
            answer = json.loads(content)
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
        connection = connect(url)
        begin.wait()
        while time.perf_counter() < end[0]:
            start = time.perf_counter()
            status, _ = analyze(connection, body, DOMAIN)
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


def _body(image: ImageArray) -> bytes:
    return form(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())


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


if __name__ == "__main__":
    sys.exit(main())
