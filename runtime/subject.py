"""The one face that a picture is of, found in tight crops and among bystanders too.

Test sets such as Labeled Faces in the Wild hold pictures *of* somebody: the face in the middle counts, others do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from runtime.decode import decode
from runtime.engine import FaceEngine
from runtime.errors import ImageError
from runtime.faces import Crops, Detections, FloatArray, ImageArray

THREADS = 2
BATCH = 16
BORDER = 0.5
"""Share of width and height that is laid around a picture in which no face was found."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What was found in one picture.

    Attributes:
        path: the file.
        embedding: (d,) float32 of length 1; None when there is no usable face.
        faces: how many faces were found.
        bordered: whether a face was found only after a black border was laid around the picture.
        problem: why there is no embedding, "" when there is one.
    """

    path: Path
    embedding: FloatArray | None
    faces: int
    bordered: bool
    problem: str


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    faces: int
    bordered: bool
    crop: Crops | None
    problem: str


def read_subjects(engine: FaceEngine, paths: Sequence[Path], on_progress: Progress | None = None) -> list[Subject]:
    """The subject of every picture, in the order of ``paths``; a picture that cannot be used says so.

    Pictures are read in two threads, faces embedded sixteen at a time.

    Args:
        on_progress: called with the pictures done and the pictures there are, from the calling thread.
    """
    subjects: list[Subject] = []
    rest = iter(paths)
    chunks = iter(lambda: list(islice(rest, BATCH)), [])
    with ThreadPoolExecutor(THREADS, "subject") as pool:
        for chunk in pool.map(lambda chunk: _read_chunk(engine, chunk), chunks):
            subjects += chunk
            if on_progress is not None:
                on_progress(len(subjects), len(paths))
    return subjects


def find_subject(engine: FaceEngine, image: ImageArray) -> tuple[Detections, bool]:
    """All faces of ``image`` ((h, w, 3) uint8 BGR), the subject first, and whether it took a border to find them.

    Detectors are trained on faces with surroundings. In a picture that is all face they may find none; a black border
    gives them the surroundings, and the crop for the embedder is black out there in any case.
    """
    found = engine.detector.detect(image)
    if len(found):
        return found.take(_most_central(found, image)), False
    left, top = round(image.shape[1] * BORDER), round(image.shape[0] * BORDER)
    framed = cv2.copyMakeBorder(image, top, top, left, left, cv2.BORDER_CONSTANT)
    found = engine.detector.detect(np.asarray(framed, np.uint8)).moved(-left, -top)
    return found.take(_most_central(found, image)), True


def _most_central(found: Detections, image: ImageArray) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Order of the faces by area less twice the squared distance from the middle, as InsightFace chooses."""
    middle = np.array([image.shape[1], image.shape[0]]) / 2
    offsets = found.boxes[:, :2] + found.boxes[:, 2:] / 2 - middle
    merit = found.boxes[:, 2] * found.boxes[:, 3] - 2 * (offsets**2).sum(axis=1)
    return np.argsort(-merit, kind="stable")


def _read_chunk(engine: FaceEngine, paths: Sequence[Path]) -> list[Subject]:
    results = [_find(engine, path) for path in paths]
    crops = [found.crop for found in results if found.crop is not None]
    embeddings = iter(engine.embedder.embed(np.concatenate(crops)) if crops else ())
    return [
        Subject(path, next(embeddings) if found.crop is not None else None, found.faces, found.bordered, found.problem)
        for path, found in zip(paths, results, strict=True)
    ]


def _find(engine: FaceEngine, path: Path) -> _Found:
    try:
        if (size := path.stat().st_size) > engine.limits.max_bytes:
            return _Found(
                0, False, None, f"The file has {size:,} bytes; at most {engine.limits.max_bytes:,} are taken."
            )
        image = decode(path.read_bytes(), engine.limits)
    except OSError as error:
        return _Found(0, False, None, f"The file cannot be read: {error.strerror}.")
    except ImageError as error:
        return _Found(0, False, None, str(error))
    found, bordered = find_subject(engine, image)
    if not len(found):
        return _Found(0, False, None, "No face was found, with a border neither.")
    crop = engine.embedder.align(image, found.take(np.array([0])))
    return _Found(len(found), bordered, crop, "")
