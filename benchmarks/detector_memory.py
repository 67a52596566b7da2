"""Memory of a detector over pictures of many shapes: ``python -m benchmarks.detector_memory``.

A detector that gives its network a new shape for each shape of picture can grow without end. A process opens it as the
service does and finds faces in pictures of ever new shapes, from one thread and from several; shown is what it holds
after so many, and the most it ever held. The default is a `retinaface-r50` of random weights with a quarter of the
channels; the real one (`--full`) takes seconds a picture. Some minutes.

  python -m benchmarks.detector_memory --shapes 100
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.report import RESULTS, Report
from models.settings import Settings
from runtime.engine import open_engine
from runtime.faces import ImageArray
from tests.retinaface import save_small

ROOT = Path(__file__).resolve().parent.parent
GROWTH = 1.25
"""What it may hold at the end, in parts of what it held after a tenth of the shapes."""

NOTE = """\
Every picture has another shape, sides of 300 to 1600 pixels, and is black. `held` is the resident memory of the process
after the detector returned, `most` the most it ever was; Python, the embedder and the network are part of both."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when the memory grows with the number of shapes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.detector_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--detector", help="as DETECTOR (default: retinaface-r50 of random weights)")
    parser.add_argument("--full", action="store_true", help="retinaface-r50 with all channels")
    parser.add_argument("--shapes", type=int, default=100)
    parser.add_argument("--threads", type=int, default=4, help="for the second half of the pictures")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the table")
    options = parser.parse_args(arguments)
    report = Report("detector-memory", "Memory of a detector over many shapes of pictures", note=NOTE)
    settings = Settings()
    chosen = options.detector or str(_random_retinaface(1 if options.full else 4))
    engine = open_engine(settings.model_copy(update={"detector": chosen, "execution_provider": "cpu"}))
    pictures = _pictures(options.shapes)
    half, tenth = options.shapes // 2, max(1, options.shapes // 10)
    held: list[float] = []

    def tell(done: int, threads: int) -> None:
        held.append(_megabytes("VmRSS"))
        report.add({"shapes": done, "threads": threads, "held, MB": held[-1], "most, MB": _megabytes("VmHWM")})

    for number, picture in enumerate(pictures[:half], start=1):
        engine.detector.detect(picture)
        if number == 1 or number % tenth == 0:
            tell(number, 1)
    with ThreadPoolExecutor(options.threads) as pool:
        for start in range(half, options.shapes, tenth):
            list(pool.map(engine.detector.detect, pictures[start : start + tenth]))
            gc.collect()
            tell(min(start + tenth, options.shapes), options.threads)
    grown = held[-1] / held[1]
    report.remark(
        f"held at the end: {grown:.2f} of what it held after {tenth} shapes; at most {GROWTH} is asked for: "
        f"{'met' if grown <= GROWTH else 'NOT met'}"
    )
    report.finish(options.output)
    return int(grown > GROWTH)


def _random_retinaface(divisor: int) -> Path:
    path = ROOT / "build" / f"retinaface-r50-random-{divisor}.onnx"
    path.parent.mkdir(exist_ok=True)
    return path if path.exists() else save_small(path, divisor)


def _pictures(count: int) -> list[ImageArray]:
    """Black, of ``count`` different shapes in any order."""
    random = np.random.default_rng(7)
    shapes: dict[tuple[int, int], None] = {}
    while len(shapes) < count:
        shapes[int(random.integers(300, 1600)), int(random.integers(300, 1600))] = None
    return [np.zeros((*shape, 3), np.uint8) for shape in shapes]


def _megabytes(name: str) -> float:
    kilobytes = int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])
    return round(kilobytes * 1024 / 1e6)


if __name__ == "__main__":
    sys.exit(main())
