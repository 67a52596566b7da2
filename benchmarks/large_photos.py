"""JPEG photos of 12 megapixels, decoded at the size that their faces need, against decoding them in full.

python -m benchmarks.large_photos [--repeat N]

Both ways run in one process, in turn, with the models that the settings name. The pictures come out of packages and are
enlarged to 4160 x 2880; with noise as well, since that of a camera makes files larger and slower to decode.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks import peers
from benchmarks.report import RESULTS, Cell, Report, interleaved, median, ratio
from models.settings import Settings
from runtime.decode import decode
from runtime.engine import FaceEngine, open_engine
from runtime.faces import Analysis, ImageArray

WIDTH, HEIGHT = 4160, 2880
_NOISE = (0, 5)
_QUALITY = 90


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=15, help="times that each is read (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write (default: benchmarks/results)")
    options = parser.parse_args(arguments)
    engine = open_engine(Settings())
    report = Report(
        "large_photos",
        "JPEG photos of 12 megapixels",
        f"Milliseconds from a file to the embeddings of its faces, {engine.detector_card.name} + "
        f"{engine.embedder_card.name} on {engine.provider}, medians; the ratio is the median of the ratios round by "
        "round. `1 /` is what the sides were divided by for the detector and, where that was too small, for the crops; "
        "`pixels` the most that was held of them; the cosine the least of all faces to the full picture's embeddings.",
    )
    for name, image in _pictures().items():
        for noise in _NOISE:
            report.add({"picture": name, "noise": noise, **_measured(engine, _jpeg(image, noise), options.repeat)})
    report.finish(options.output or RESULTS)
    return 0


def _pictures() -> dict[str, ImageArray]:
    group, portrait = (decode(path.read_bytes()) for path in (peers.group_picture(), peers.portrait(HEIGHT, HEIGHT)))
    one, far = np.full((HEIGHT, WIDTH, 3), 128, np.uint8), np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    one[:, :HEIGHT] = portrait
    far[1000 : 1000 + group.shape[0], 1400 : 1400 + group.shape[1]] = group
    large = np.asarray(cv2.resize(group, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)
    return {"one face": one, "six faces": large, "faces far away": far}


def _jpeg(image: ImageArray, noise: float) -> bytes:
    """A file with ``noise`` grey levels (standard deviation) added to each pixel."""
    added = np.random.default_rng(0).normal(0, noise, image.shape[:2])[..., None]
    noisy = np.clip(image + added, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def _measured(engine: FaceEngine, data: bytes, repeat: int) -> dict[str, Cell]:
    found, whole = engine.analyze(data), engine.embed_image(decode(data))
    decoded: list[float] = []
    times = interleaved(
        {
            "full": lambda: engine.embed_image(decode(data)),
            "full, decode": lambda: decode(data),
            "reduced": lambda: decoded.append(engine.analyze(data).timing_ms["decode"]),
        },
        repeat,
    )
    return {
        "file, kB": len(data) // 1000,
        "faces": len(found.detections),
        "1 /": ", ".join(map(str, found.factors)),
        "full: decode, ms": median(times["full, decode"]),
        "reduced: decode, ms": median(decoded),
        "full: all, ms": median(times["full"]),
        "reduced: all, ms": median(times["reduced"]),
        "faster, times": ratio(times, "full", "reduced"),
        "full: pixels, MB": WIDTH * HEIGHT * 3 / 1e6,
        "reduced: pixels, MB": WIDTH * HEIGHT * 3 / min(found.factors) ** 2 / 1e6,
        "cosine": _least_cosine(found, whole),
    }


def _least_cosine(one: Analysis, other: Analysis) -> float:
    return float((one.embeddings @ other.embeddings.T).max(axis=1).min())


if __name__ == "__main__":
    sys.exit(main())
