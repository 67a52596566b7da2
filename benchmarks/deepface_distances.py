"""The same boxes, embeddings, rankings and distances as DeepFace: ``python -m benchmarks.deepface_distances``.

Makes DeepFace's ArcFace with random weights (statistics of its norms set on the pictures, so that distances spread),
exports it with ``python -m convert export``, and asks DeepFace 0.0.96 on TensorFlow, DeepFace 0.0.103 on ONNX Runtime
and this project's runtime the same: the faces of every picture, their embeddings, and for each picture the ranking of
all others. Scratch environments are made under ``--work`` unless they are there or named. About 10 minutes on 2 cores.

  python -m benchmarks.deepface_distances --images ../shared/faces/bbt
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.deepface_versions import PEER, Peer, add_galleries, command_line, copied, open_versions
from benchmarks.report import Report
from convert.repair import change_card
from models.builtin import HAAR
from models.card import ColourOrder, load_card
from models.presets import Preset, find_preset
from runtime.detectors import open_built_in
from runtime.embed import Embedder
from runtime.engine import FaceEngine
from runtime.faces import FloatArray
from runtime.session import SharedSession

MIN_COSINE, MAX_DIFFERENCE = 0.9999, 1e-3
PRESETS = {"base": "deepface-arcface", "ArcFace": "deepface-arcface-normalized"}
TINT = (0.55, 0.8, 1.0)
"""Factors of blue, green and red."""

NOTE = """\
ArcFace with random weights, detector `opencv` (ours: `haar`), aligned, cosine distance; each picture is searched among
all. `represent` stands for the distances between its embeddings. From 0.0.94 to 0.0.101 DeepFace's `find` exchanges red
and blue in the query but not in the gallery (docs/deepface-surprises.md): grey pictures do not show it, the tinted ones
do, and its distances are met when our query is exchanged too. DeepFace 0.0.103 brings OpenCV 5, whose cubic
`warpAffine` gives other pixels than OpenCV 4's; it is asked on both, and on OpenCV 5 our alignment is
`deepface-opencv5`."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What one version of DeepFace answered.

    Attributes:
        peer: who.
        normalization: its parameter of that name.
        shown: which pictures it saw.
        pictures: see ``write_answers`` in ``deepface_peer.py``.
    """

    peer: Peer
    normalization: str
    shown: str
    pictures: Sequence[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What our runtime finds.

    Attributes:
        boxes: per picture, (n, 4) float32.
        embeddings: per picture, (n, 512) float32, rows of length 1.
    """

    boxes: Sequence[FloatArray]
    embeddings: Sequence[FloatArray]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a box, a ranking, a cosine or a distance is not DeepFace's."""
    parser = command_line("benchmarks.deepface_distances", __doc__ or "")
    add_galleries(parser)
    options = parser.parse_args(arguments)
    versions = open_versions(options)
    old, new, work, model = versions.old, versions.new, versions.work, versions.model
    pinned = replace(new, opencv=_opencv(new, work / "opencv4"))
    pictures = {"as they are": options.images.resolve(), "tinted": _tinted(options.images, work / "tinted")}
    report = Report("deepface-distances", "The same distances as DeepFace", note=NOTE)
    fine = True
    for peer in (old, pinned, new):
        for normalization, shown in (("base", "as they are"), ("ArcFace", "as they are"), ("base", "tinted")):
            gallery = copied(pictures[shown], work / f"gallery-{peer.version}")
            answers = work / "answers.json"
            peer.call(PEER, "find", gallery, answers, "--normalization", normalization)
            theirs = json.loads(answers.read_text())
            report.facts[f"DeepFace {peer.label}"] = f"{peer.engine}, OpenCV {theirs['opencv']}"
            case = Case(peer, normalization, shown, theirs["pictures"])
            preset = replace(
                find_preset(PRESETS[normalization]),
                alignment="deepface-opencv5" if theirs["opencv"].startswith("5.") else "deepface",
            )
            embedders = {colour: _embedder(model, preset, colour) for colour in ("BGR", "RGB")}
            ours = {colour: _analyse(embedder, gallery, case) for colour, embedder in embedders.items()}
            fine &= _compare(report, case, ours["BGR"], ours["RGB"])
    report.remark(
        f"asked for: all boxes, cosine at least {MIN_COSINE}, all rankings, distances within {MAX_DIFFERENCE}: "
        f"{'met' if fine else 'NOT met'}"
    )
    report.finish(options.output)
    return int(not fine)


def _opencv(peer: Peer, folder: Path) -> Path:
    """The OpenCV of this project for a peer that has another one."""
    if not folder.exists():
        what = ("--no-deps", "--target", str(folder), "opencv-python-headless>=4.12,<5")
        peer.call("-m", "pip", "install", "--quiet", *what)
    return folder


def _tinted(images: Path, folder: Path) -> Path:
    """The pictures with less blue than red; some sets are grey, where an exchange of the two does not show."""
    for path in images.rglob("*.png"):
        target = folder / path.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), (cv2.imread(str(path)) * np.array(TINT)).astype(np.uint8))
    return folder


def _embedder(model: Path, preset: Preset, colour: ColourOrder) -> Embedder:
    card = load_card(model)
    card = replace(card, mean=preset.mean, scale=preset.scale, alignment=preset.alignment, colour=colour)
    fed = model.with_name(f"fed-{colour}.onnx")
    fed.write_bytes(change_card(model.read_bytes(), card))
    return Embedder(SharedSession(fed))


def _analyse(embedder: Embedder, images: Path, case: Case) -> Answers:
    engine = FaceEngine(open_built_in(HAAR), embedder)
    found = [engine.analyze((images / picture["source"]).read_bytes()) for picture in case.pictures]
    return Answers([one.detections.boxes for one in found], [one.embeddings for one in found])


def _compare(report: Report, case: Case, ours: Answers, exchanged: Answers) -> bool:
    """Rows for what ``represent`` and ``find`` give; whether all is as it should be.

    Args:
        exchanged: ours with red and blue exchanged.
    """
    theirs = case.pictures
    count = len(theirs)
    same_boxes = sum(
        sorted(map(tuple, picture["boxes"])) == sorted(map(tuple, boxes.tolist()))
        for picture, boxes in zip(theirs, ours.boxes, strict=True)
    )
    alone = [index for index, picture in enumerate(theirs) if len(picture["boxes"]) == len(ours.boxes[index]) == 1]
    sources = [theirs[index]["source"] for index in alone]
    given = np.array([theirs[index]["embeddings"][0] for index in alone])
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    mine = np.concatenate([ours.embeddings[index] for index in alone]).astype(np.float64)
    asked = np.concatenate([exchanged.embeddings[index] for index in alone]).astype(np.float64)
    cosine = float((given * mine).sum(axis=1).min())
    fine = same_boxes == count and cosine >= MIN_COSINE
    represented = [_ranked(sources, row) for row in 1 - given @ given.T]
    found = [theirs[index]["find"][0] for index in alone]
    swaps = case.peer.swaps and case.shown == "tinted"
    comparisons = [("represent", represented, mine, True), ("find", found, mine, not swaps)]
    if swaps:
        comparisons.append(("find, our query exchanged too", found, asked, True))
    for name, expected, queries, wanted in comparisons:
        distances = 1 - queries @ mine.T
        same, largest = _agreement(expected, sources, distances)
        fine &= not wanted or (same == count and largest <= MAX_DIFFERENCE)
        report.add(
            {
                "DeepFace": case.peer.label,
                "normalisation": case.normalization,
                "pictures": case.shown,
                "compared with": name,
                "same boxes": f"{same_boxes} of {count}",
                "smallest cosine": f"{cosine:.8f}",
                "same rankings": f"{same} of {count}",
                "largest difference of a distance": f"{largest:.1e}",
                "their distances": _span(expected, sources),
            }
        )
    return fine


def _span(expected: Sequence[Sequence[tuple[str, float]]], sources: Sequence[str]) -> str:
    """To itself, and to others."""
    own = [dict(ranking)[source] for ranking, source in zip(expected, sources, strict=True)]
    others = [
        distance
        for ranking, own in zip(expected, sources, strict=True)
        for source, distance in ranking
        if source != own
    ]
    return f"own {max(map(abs, own)):.3f}, others {min(others):.3f} to {max(others):.3f}"


def _agreement(
    expected: Sequence[Sequence[tuple[str, float]]], sources: Sequence[str], distances: npt.NDArray[np.float64]
) -> tuple[int, float]:
    """How many rankings are the same, and the largest difference of two distances."""
    same, largest = 0, 0.0
    for ranking, row in zip(expected, distances, strict=True):
        given = dict(ranking)
        same += [source for source, _ in ranking] == [source for source, _ in _ranked(sources, row)]
        largest = max(largest, *(abs(given[source] - row[index]) for index, source in enumerate(sources)))
    return same, float(largest)


def _ranked(sources: Sequence[str], distances: npt.NDArray[np.float64]) -> list[tuple[str, float]]:
    return [(sources[index], float(distances[index])) for index in np.argsort(distances, kind="stable")]


if __name__ == "__main__":
    sys.exit(main())
