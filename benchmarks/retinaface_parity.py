"""retina-face's RetinaFace against ours, on random weights: ``python -m benchmarks.retinaface_parity PICTURE...``

Lets the package retina-face (TensorFlow) write its network with random weights as ``retinaface.h5``, the norms'
statistics set on the pictures, builds the ONNX graph from that file, and compares for every picture the nine raw
outputs, the faces of ``RetinaFace.detect_faces``, and those that DeepFace reports. The scratch environment of
``benchmarks.deepface_distances`` is used, or made. Several minutes.

  python -m benchmarks.retinaface_parity ../shared/faces/bbt/amy/amy1.png ../shared/faces/groups/bbt2.jpg
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.deepface_versions import ROOT, command_line, environment
from benchmarks.report import Report
from convert.arcface import read_legacy_weights
from convert.repair import with_card
from convert.retinaface import build_retinaface, check_weights
from models.presets import Changes, Origin, find_preset, make_card
from models.verify import signature
from runtime.detectors.retinaface_resnet50 import RetinaFaceResNet50, decode, resize
from runtime.faces import ImageArray
from runtime.providers import CPU, SessionOptions
from runtime.session import SharedSession, as_batch

PEER = Path(__file__).with_name("retinaface_peer.py")
MAX_DIFFERENCE = 1e-3
"""Of a raw output, in parts of its largest number."""
MAX_PIXELS = 0.05
"""Of a corner before it is cut to a whole pixel, and of a landmark."""

NOTE = """\
Random weights, so that hundreds of anchors count as faces. `raw` is the largest difference of one of the nine outputs,
in parts of its largest number. `from the same outputs`: our reading of TensorFlow's own outputs gives the package's
faces. `from ours`: so do those of our network; both cut corners to whole pixels, and of a corner that lies at the
edge of a pixel (within {pixels} pixels) either side counts. `DeepFace`: what it reports, found within a pixel."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when an output or a face is not the package's."""
    parser = command_line("benchmarks.retinaface_parity", __doc__ or "")
    parser.add_argument("pictures", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    work = options.work.resolve()
    python = environment("0.0.96", options.venv96 or work / "venv96")
    pictures = [path.resolve() for path in options.pictures]
    weights, answers = work / "retinaface.h5", work / "retinaface-answers.npz"
    if not weights.exists():
        _call(python, "weights", _copied(pictures, work / "retinaface-pictures"), weights)
    _call(python, "answers", *pictures, weights, answers)
    detector = RetinaFaceResNet50(SharedSession(_built(weights, work), CPU, SessionOptions(arena=False)))
    report = Report(
        "retinaface-parity",
        "RetinaFace (ResNet-50) as the package retina-face and DeepFace compute it",
        note=NOTE.format(pixels=MAX_PIXELS),
    )
    with np.load(answers) as theirs:
        same = [_compare(report, detector, path, number, theirs) for number, path in enumerate(pictures)]
    fine = all(same)
    wanted = f"all faces, landmarks within {MAX_PIXELS} pixels, raw outputs within {MAX_DIFFERENCE}"
    report.remark(f"asked for: {wanted}: {'met' if fine else 'NOT met'}")
    report.finish(options.output)
    return int(not fine)


def _call(python: Path, *arguments: str | Path) -> None:
    settings = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"}
    command = [str(python), str(PEER), *map(str, arguments)]
    subprocess.run(command, check=True, env={**os.environ, **settings}, cwd=ROOT)  # noqa: S603


def _copied(pictures: Sequence[Path], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for path in pictures:
        shutil.copy(path, folder)
    return folder


def _built(weights: Path, work: Path) -> Path:
    model = build_retinaface(check_weights(read_legacy_weights(weights), weights.name))
    path = work / "retinaface-r50.onnx"
    path.write_bytes(model.SerializeToString())
    preset = replace(find_preset("deepface-retinaface"), layout="NCHW")
    card = make_card(preset, Changes(), path.stem, signature(path), Origin(weights.name, ""))
    path.write_bytes(with_card(model, card))
    return path


def _compare(report: Report, detector: RetinaFaceResNet50, path: Path, number: int, theirs: Any) -> bool:
    image: ImageArray = np.asarray(cv2.imread(str(path)), np.uint8)
    scaled, scale = resize(image)
    size = (scaled.shape[1], scaled.shape[0])
    outputs = detector.session.run({detector.session.inputs[0]: as_batch(scaled[None], detector.card)})
    given = [theirs[f"raw_{number}_{index}"] for index in range(len(outputs))]
    raw = max(float(np.abs(their - our).max() / np.abs(our).max()) for their, our in zip(given, outputs, strict=True))
    expected = theirs[f"faces_{number}"][:, 1:]
    read, _ = _matched(_faces(given, size, scale), expected, 0.0)
    same, points = _matched(_faces(outputs, size, scale), expected, MAX_PIXELS)
    reported = np.array([[area[key] for key in "xywh"] for area in json.loads(str(theirs[f"deepface_{number}"]))])
    boxes = detector.detect(image).boxes
    agreed = sum(bool((np.abs(boxes - area) <= 1).all(axis=1).any()) for area in reported)
    exactly = sum(bool((boxes == area).all(axis=1).any()) for area in reported)
    report.add(
        {
            "picture": path.name,
            "network sees": f"{size[0]} x {size[1]}",
            "raw": f"{raw:.1e}",
            "faces": len(expected),
            "from the same outputs": f"{read} of {len(expected)}",
            "from ours": f"{same} of {len(expected)}",
            "largest difference of a landmark, px": f"{points:.1e}",
            "DeepFace": f"{agreed} of {len(reported)}, {exactly} to the pixel",
        }
    )
    return (
        raw <= MAX_DIFFERENCE
        and read == same == len(expected) == len(_faces(outputs, size, scale))
        and points <= MAX_PIXELS
        and agreed == len(reported) == len(boxes)
    )


def _faces(outputs: Any, size: tuple[int, int], scale: float) -> Any:
    """Rows of four corners and five landmarks, float64."""
    corners, landmarks, _ = decode(outputs, size, scale)
    return np.concatenate([corners, landmarks.reshape(-1, 10)], axis=1).astype(np.float64)


def _matched(ours: Any, theirs: Any, edge: float) -> tuple[int, float]:
    """How many of their boxes, of whole pixels, are among ours, and the largest difference of a landmark of these.

    In any order: random scores lie so close together that rounding changes it.

    Args:
        edge: how far beyond their pixel a corner of ours may lie.
    """
    count, furthest = 0, 0.0
    for row in theirs:
        inside = (ours[:, :4] >= row[:4] - edge) & (ours[:, :4] < row[:4] + 1 + edge)
        found = ours[inside.all(axis=1)]
        if len(found):
            count += 1
            furthest = max(furthest, float(np.abs(found[:, 4:] - row[4:]).max(axis=1).min()))
    return count, furthest


if __name__ == "__main__":
    sys.exit(main())
