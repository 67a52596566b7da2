"""One way from pictures to embeddings, in a process of its own: reads a job a line, answers a line, both JSON.

Runs in the environment of what it measures, so it imports nothing of this project except for ``ours``:

python benchmarks/worker.py ours                 # the models and the provider that the environment variables name
python benchmarks/worker.py insightface FOLDER   # a pack: detector and embedder
python benchmarks/worker.py deepface             # weights under DEEPFACE_HOME
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2

Measured = dict[str, Any]


class Ours:
    """This project's engine."""

    def __init__(self) -> None:
        # Not at the top: peers' environments have none of it.
        from models.settings import Settings  # noqa: PLC0415
        from runtime.engine import open_engine  # noqa: PLC0415

        self._engine = open_engine(Settings())
        self.about = f"{self._engine.embedder_card.name}, {self._engine.provider}, {self._engine.precision}"

    def picture(self, path: Path) -> int:
        return len(self._engine.analyze(path.read_bytes()).detections)

    def crop(self, path: Path) -> Callable[[], Any]:
        crop = cv2.imread(str(path))[None]
        return lambda: self._engine.embedder.embed(crop)


class InsightFace:
    """``FaceAnalysis`` of the package insightface, as its documentation calls it."""

    about = "insightface"

    def __init__(self, pack: str) -> None:
        from insightface.app import FaceAnalysis  # noqa: PLC0415

        self._app = FaceAnalysis(name=pack, providers=["CPUExecutionProvider"])
        self._app.prepare(ctx_id=0)

    def picture(self, path: Path) -> int:
        return len(self._app.get(cv2.imread(str(path))))

    def crop(self, path: Path) -> Callable[[], Any]:
        crop = cv2.imread(str(path))
        return lambda: self._app.models["recognition"].get_feat(crop)


class DeepFacePeer:
    """``DeepFace.represent`` with its default detector."""

    about = "deepface"

    def __init__(self) -> None:
        from deepface import DeepFace  # noqa: PLC0415

        self._represent = DeepFace.represent

    def picture(self, path: Path) -> int:
        return len(self._represent(str(path), model_name="ArcFace", enforce_detection=False))

    def crop(self, path: Path) -> Callable[[], Any]:
        crop = cv2.imread(str(path))
        return lambda: self._represent(crop, model_name="ArcFace", detector_backend="skip")


Way = Ours | InsightFace | DeepFacePeer
WAYS: dict[str, Callable[..., Way]] = {"ours": Ours, "insightface": InsightFace, "deepface": DeepFacePeer}


def picture(way: Way, job: Measured) -> Measured:
    """Milliseconds from the file to the embeddings of all of its faces."""
    start = time.perf_counter()
    faces = way.picture(Path(job["path"]))
    return {"ms": (time.perf_counter() - start) * 1000, "faces": faces}


def crop(way: Way, job: Measured) -> Measured:
    """Median milliseconds of one embedding of a crop, of ``repeat``."""
    embed = way.crop(Path(job["path"]))
    times = []
    for _ in range(job["repeat"]):
        start = time.perf_counter()
        embed()
        times.append((time.perf_counter() - start) * 1000)
    return {"ms": statistics.median(times)}


def throughput(way: Way, job: Measured) -> Measured:
    """Embeddings of a crop in a second, from ``threads`` threads of this process, over ``seconds``."""
    embed = way.crop(Path(job["path"]))
    end = time.perf_counter() + job["seconds"]

    def work(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            embed()
            done += 1
        return done

    start = time.perf_counter()
    with ThreadPoolExecutor(job["threads"]) as pool:
        done = sum(pool.map(work, range(job["threads"])))
    return {"per_second": done / (time.perf_counter() - start)}


def vectors(way: Way, job: Measured) -> Measured:
    """The embeddings of the crops in the files ``paths``, as lists of numbers."""
    return {"vectors": [way.crop(Path(path))()[0].tolist() for path in job["paths"]]}


JOBS = {"picture": picture, "crop": crop, "throughput": throughput, "vectors": vectors}


def main() -> None:
    """Answer until the input ends."""
    # What libraries print must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    way = WAYS[sys.argv[1]](*sys.argv[2:])
    print(json.dumps({"about": way.about}), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(JOBS[job["do"]](way, job)), file=answers, flush=True)


if __name__ == "__main__":
    main()
