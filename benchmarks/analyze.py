"""How long does one picture take, stage by stage, and how many a second pass through one process?"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from matchers.demo import demo_picture
from models.settings import Settings
from runtime.engine import open_engine


def main() -> int:
    """Print a table; needs no server."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.analyze", description=__doc__)
    parser.add_argument("picture", nargs="?", type=Path, default=demo_picture(), help="default: the demo picture")
    parser.add_argument("--repeat", type=int, default=30, help="pictures to measure (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=4, help="threads for the throughput (default: %(default)s)")
    options = parser.parse_args()
    if options.picture is None:
        print("The demo picture is not installed; name a picture.", file=sys.stderr)
        return 2
    engine = open_engine(Settings())
    data = options.picture.read_bytes()
    engine.analyze(data)
    runs = [engine.analyze(data) for _ in range(options.repeat)]
    print(f"{options.picture.name}: {runs[0].width} x {runs[0].height}, {len(runs[0].detections)} faces, ", end="")
    print(f"{engine.detector_card.name} + {engine.embedder_card.name} on {engine.provider}")
    for stage in runs[0].timing_ms:
        values = sorted(run.timing_ms[stage] for run in runs)
        print(f"  {stage:8} median {statistics.median(values):7.1f} ms   slowest {values[-1]:7.1f} ms")
    start = time.perf_counter()
    with ThreadPoolExecutor(options.threads) as pool:
        list(pool.map(lambda _: engine.analyze(data), range(options.repeat)))
    print(f"  {options.repeat / (time.perf_counter() - start):.1f} pictures/s from {options.threads} threads")
    return 0


if __name__ == "__main__":
    sys.exit(main())
