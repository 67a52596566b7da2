"""DeepFace's own ArcFace against its export: ``python -m benchmarks.arcface_parity FACES``

In a scratch environment with DeepFace 0.0.96 and what `convert` needs, made on the first run, lets DeepFace build its
ArcFace with random weights (slopes and norm statistics set, so that faces do not fall on one point), writes them as
DeepFace's legacy ``.h5``, exports that file with ``python -m convert export``, and compares TensorFlow with the runtime
on equal crops. About 3 minutes.

  python -m benchmarks.arcface_parity ../shared/faces/bbt
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import peers
from benchmarks.report import RESULTS, Report
from convert.portraits import Portrait, portraits_from
from models.settings import Settings
from runtime.align import align_deepface
from runtime.faces import FloatArray
from runtime.session import SharedSession

PEER = Path(__file__).with_name("deepface_peer.py")
MIN_COSINE = 0.99999

_RUN = """
import sys
import numpy as np
from deepface.models.facial_recognition import ArcFace
ArcFace.weight_utils.download_weights_if_necessary = lambda **_: sys.argv[2]
model = ArcFace.load_model()
np.save(sys.argv[3], model(np.load(sys.argv[1]), training=False).numpy())
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a face's cosine is below 0.99999."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.arcface_parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("faces", type=Path, help="folder of pictures, <person>/<picture>")
    peers.add_options(parser)
    options = parser.parse_args(arguments)
    work = peers.WORK / "arcface-parity"
    work.mkdir(parents=True, exist_ok=True)
    python = peers.environment("arcface-parity", options.venv)
    portraits = portraits_from(options.faces, Settings().models_path, lambda text: print(text, file=sys.stderr))
    weights, model = work / "arcface_weights.h5", work / "arcface.onnx"
    inputs = work / "crops.npy"
    np.save(inputs, _aligned(portraits))
    _call(python, str(PEER), "h5", str(inputs), str(weights))
    start = time.monotonic()
    files = ("--weights", str(weights), "--output", str(model), "--images", str(options.faces.resolve()))
    _call(python, "-m", "convert", "export", *files)
    seconds = time.monotonic() - start
    reference = work / "deepface.npy"
    _call(python, "-c", _RUN, str(inputs), str(weights), str(reference))
    report = Report("arcface-parity", "DeepFace's own ArcFace, random weights, in TensorFlow and as exported")
    fine = _compare(report, SharedSession(model), np.load(inputs), np.load(reference))
    report.add({"figure": "seconds of the export", "value": seconds})
    report.finish(options.output or RESULTS)
    return int(not fine)


def _call(python: Path, *arguments: str) -> None:
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([str(python), *arguments], check=True, env=environment, cwd=peers.ROOT)  # noqa: S603


def _aligned(portraits: Sequence[Portrait]) -> FloatArray:
    """(n, 112, 112, 3) float32, BGR, 0 to 1: crops as DeepFace feeds them."""
    cut = [align_deepface(portrait.image, portrait.face.boxes, portrait.face.landmarks) for portrait in portraits]
    return np.concatenate(cut) / np.float32(255)


def _compare(report: Report, session: SharedSession, pictures: FloatArray, expected: FloatArray) -> bool:
    actual = session.run({session.inputs[0]: np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))})[0]
    cosines = (actual * expected).sum(axis=1) / np.linalg.norm(actual, axis=1) / np.linalg.norm(expected, axis=1)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    others = (1 - unit @ unit.T)[~np.eye(len(unit), dtype=bool)]
    largest = np.abs(actual - expected).max()
    report.add({"figure": "faces", "value": len(pictures)})
    report.add({"figure": "smallest cosine of runtime and DeepFace", "value": f"{cosines.min():.8f}"})
    report.add(
        {"figure": "largest difference of two numbers", "value": f"{largest:.2g} of {np.abs(expected).max():.2g}"}
    )
    report.add({"figure": "distances between faces, for scale", "value": f"{others.min():.3f} to {others.max():.3f}"})
    fine = bool(cosines.min() >= MIN_COSINE)
    report.remark(f"cosine of at least {MIN_COSINE}: {'reached' if fine else 'MISSED'}")
    return fine


if __name__ == "__main__":
    sys.exit(main())
