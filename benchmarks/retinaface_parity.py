"""retina-face's RetinaFace against ours, on random weights: ``python -m benchmarks.retinaface_parity PICTURE...``

Lets the package retina-face (TensorFlow) write its network with random weights as ``retinaface.h5``, the norms'
statistics set on the pictures, builds the ONNX graph from that file, and compares for every picture the nine raw
outputs, the faces of ``RetinaFace.detect_faces``, and those that DeepFace reports. The scratch environment of
``benchmarks.deepface_distances`` is used, or made. Several minutes.

  python -m benchmarks.retinaface_parity ../shared/faces/bbt/amy/amy1.png ../shared/faces/groups/bbt2.jpg
"""

from __future__ import annotations

import argparse
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

from benchmarks.deepface_distances import ROOT, environment
from benchmarks.report import RESULTS, Report
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when an output or a face is not the package's."""
    about, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retinaface_parity",
        description=f"{about}\n\n{details}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--work", type=Path, default=Path("build/deepface-distances"), help="environment and files")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the table")
    options = parser.parse_args(arguments)
    work = options.work.resolve()
    python = environment("0.0.96", work / "venv96")
    pictures = [path.resolve() for path in options.pictures]
    weights, answers = work / "retinaface.h5", work / "retinaface-answers.npz"
    if not weights.exists():
        _call(python, "weights", _copied(pictures, work / "retinaface-pictures"), weights)
    _call(python, "answers", *pictures, weights, answers)
    detector = RetinaFaceResNet50(SharedSession(_built(weights, work), CPU, SessionOptions(arena=False)))
    report = Report(
        "retinaface-parity",
        "RetinaFace (ResNet-50) as the package retina-face and DeepFace compute it",
        note="Random weights; `raw` is the largest difference of an output in parts of its largest number.",
    )
    with np.load(answers) as theirs:
        same = [_compare(report, detector, path, number, theirs) for number, path in enumerate(pictures)]
    fine = all(same)
    report.remark(f"asked for: the same faces, raw outputs within {MAX_DIFFERENCE}: {'met' if fine else 'NOT met'}")
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
    outputs = detector.session.run({detector.session.inputs[0]: as_batch(scaled[None], detector.card)})
    raw = max(
        float(np.abs(theirs[f"raw_{number}_{index}"] - output).max() / np.abs(output).max())
        for index, output in enumerate(outputs)
    )
    corners, landmarks, _ = decode(outputs, (scaled.shape[1], scaled.shape[0]), scale)
    expected = theirs[f"faces_{number}"]
    # In any order: random scores lie so close together that rounding changes it.
    ours = np.concatenate([corners.astype(int), landmarks.reshape(-1, 10)], axis=1)
    same, points = _matched(ours, expected[:, 1:])
    reported = json.loads(str(theirs[f"deepface_{number}"]))
    found = detector.detect(image)
    boxes = {tuple(map(int, box)) for box in found.boxes}
    agreed = sum(tuple(area[key] for key in "xywh") in boxes for area in reported)
    report.add(
        {
            "picture": path.name,
            "network sees": f"{scaled.shape[1]} x {scaled.shape[0]}",
            "raw": f"{raw:.1e}",
            "faces of retina-face": len(expected),
            "ours": len(corners),
            "same boxes": same,
            "largest difference of a landmark, px": f"{points:.1e}",
            "boxes of DeepFace": len(reported),
            "the same from ours": agreed,
        }
    )
    return raw <= MAX_DIFFERENCE and same == len(expected) == len(corners) and agreed == len(reported)


def _matched(ours: Any, theirs: Any) -> tuple[int, float]:
    """How many of their boxes are among ours, and the largest difference of a landmark of these."""
    by_box = {tuple(map(int, row[:4])): row[4:] for row in ours}
    pairs = [(by_box[key], row[4:]) for row in theirs if (key := tuple(map(int, row[:4]))) in by_box]
    return len(pairs), max((float(np.abs(one - other).max()) for one, other in pairs), default=0.0)


if __name__ == "__main__":
    sys.exit(main())
