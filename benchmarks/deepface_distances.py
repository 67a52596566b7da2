"""The same boxes, embeddings, rankings and distances as DeepFace: ``python -m benchmarks.deepface_distances``.

Makes DeepFace's ArcFace with random weights (statistics of its norms set on the pictures, so that distances spread),
exports it with ``python -m convert export``, and asks DeepFace 0.0.96 on TensorFlow, DeepFace 0.0.103 on ONNX Runtime
and this project's runtime the same: the faces of every picture, their embeddings, and for each picture the ranking of
all others. Scratch environments are made under ``--work`` unless they are there or named. About 10 minutes on 2 cores.

  python -m benchmarks.deepface_distances --images ../shared/faces/bbt
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.report import RESULTS, Report
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
ROOT = Path(__file__).resolve().parent.parent
PEER = Path(__file__).with_name("deepface_peer.py")

# 0.0.103 asks for OpenCV 5, whose `opencv-contrib` still has the class but ships no cascades; they lie in OpenCV 4.
CASCADES = ("haarcascade_frontalface_default.xml", "haarcascade_eye.xml")

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

REQUIREMENTS: Mapping[str, Sequence[str]] = {
    "0.0.96": ("deepface==0.0.96", "tensorflow-cpu==2.19.*", "tf_keras==2.19.*", f"{ROOT}[cpu,convert]"),
    "0.0.103": ("deepface==0.0.103", "pandas", "onnxruntime"),
}


@dataclass(frozen=True, slots=True)
class Peer:
    """One version of DeepFace in an environment of its own.

    Attributes:
        version: of DeepFace.
        python: the environment's interpreter.
        home: where it looks for weights.
        engine: what runs its networks.
        swaps: whether its ``find`` embeds the query with red and blue exchanged, the gallery not (0.0.94 to 0.0.101).
        opencv: folder of an OpenCV that it is to use instead of its own.
    """

    version: str
    python: Path
    home: Path
    engine: str
    swaps: bool
    opencv: Path | None = None

    @property
    def label(self) -> str:
        """What the table calls it."""
        return f"{self.version}, OpenCV 4" if self.opencv else self.version

    @property
    def weights(self) -> Path:
        """The folder of its weights."""
        return self.home / ".deepface" / "weights"

    def call(self, *arguments: str | Path) -> None:
        """Run its interpreter; raises CalledProcessError."""
        settings = {
            **os.environ,
            "DEEPFACE_HOME": str(self.home),
            "DEEPFACE_BACKEND_ENGINE": self.engine,
            "TF_USE_LEGACY_KERAS": "1",
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(map(str, filter(None, (self.opencv, ROOT)))),
        }
        subprocess.run([str(self.python), *map(str, arguments)], check=True, env=settings, cwd=ROOT)  # noqa: S603


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
    about, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.deepface_distances",
        description=f"{about}\n\n{details}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=Path, required=True, help="PNG pictures of faces, <person>/<picture>")
    parser.add_argument("--venv96", type=Path, help="environment with DeepFace 0.0.96, TensorFlow and `.[convert]`")
    parser.add_argument("--venv103", type=Path, help="environment with DeepFace 0.0.103 and onnxruntime")
    parser.add_argument("--work", type=Path, default=Path("build/deepface-distances"), help="environments and files")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the table")
    options = parser.parse_args(arguments)
    work = options.work.resolve()
    old = open_peer("0.0.96", options.venv96 or work / "venv96", work, "tensorflow", swaps=True)
    new = open_peer("0.0.103", options.venv103 or work / "venv103", work, "onnx", swaps=False)
    pinned = replace(new, opencv=_opencv(new, work / "opencv4"))
    pictures = {"as they are": options.images.resolve(), "tinted": _tinted(options.images, work / "tinted")}
    h5, onnx = old.weights / "arcface_weights.h5", new.weights / "arcface_weights.onnx"
    if not (h5.exists() and onnx.exists()):
        old.call(PEER, "weights", pictures["as they are"], h5, onnx)
    model = work / "arcface.onnx"
    if not model.exists():
        old.call("-m", "convert", "export", "--weights", h5, "--output", model, "--images", pictures["as they are"])
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


def environment(version: str, venv: Path) -> Path:
    """The interpreter of an environment with a version of DeepFace, made when it is not there."""
    python = venv.absolute() / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)  # noqa: S603
        install = [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[version]]
        subprocess.run(install, check=True)  # noqa: S603
    return python


def open_peer(version: str, venv: Path, work: Path, engine: str, *, swaps: bool) -> Peer:
    """A version of DeepFace; its environment is made when it is not there, its weights lie under ``work``."""
    python = environment(version, venv)
    peer = Peer(version, python, work / f"home-{version}", engine, swaps)
    peer.weights.mkdir(parents=True, exist_ok=True)
    for name in CASCADES:
        shutil.copy(Path(cv2.__file__).parent / "data" / name, peer.weights)
    return peer


def _opencv(peer: Peer, folder: Path) -> Path:
    """The OpenCV of this project for a peer that has another one."""
    if not folder.exists():
        what = ("--no-deps", "--target", str(folder), "opencv-python-headless>=4.12,<5")
        peer.call("-m", "pip", "install", "--quiet", *what)
    return folder


def copied(images: Path, folder: Path) -> Path:
    """The pictures in a folder of their own, since ``find`` writes its gallery beside them."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(images, folder))


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
