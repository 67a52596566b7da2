"""DeepFace's own ArcFace against its export: ``python -m benchmarks.arcface_parity FACES [--work DIR]``.

Makes a scratch environment with DeepFace 0.0.96 and what `convert` needs, lets DeepFace build its ArcFace with random
weights (slopes and norm statistics set, so that faces do not fall on one point), writes them as DeepFace's legacy
``.h5``, exports that file with ``python -m convert export``, and compares TensorFlow with the runtime on equal crops.
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

from convert.portraits import Portrait, portraits_from
from models.settings import Settings
from runtime.align import align_deepface
from runtime.faces import FloatArray
from runtime.session import SharedSession

PEER = Path(__file__).with_name("deepface_peer.py")
PACKAGES = ("deepface==0.0.96", "tensorflow-cpu==2.19.*", "tf_keras==2.19.*")
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
    about = (__doc__ or "").partition("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arcface_parity", description=about)
    parser.add_argument("faces", type=Path, help="folder of pictures, <person>/<picture>")
    parser.add_argument("--work", type=Path, default=Path("build/arcface-parity"), help="environment and files")
    options = parser.parse_args(arguments)
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    python = _environment(work / "venv")
    portraits = portraits_from(options.faces, Settings().models_path, lambda text: print(text, file=sys.stderr))
    weights, model = work / "arcface_weights.h5", work / "arcface.onnx"
    inputs = work / "crops.npy"
    np.save(inputs, _aligned(portraits))
    _call(python, str(PEER), "h5", str(inputs), str(weights))
    start = time.monotonic()
    files = ("--weights", str(weights), "--output", str(model), "--images", str(options.faces))
    _call(python, "-m", "convert", "export", *files)
    seconds = time.monotonic() - start
    reference = work / "deepface.npy"
    _call(python, "-c", _RUN, str(inputs), str(weights), str(reference))
    return _report(SharedSession(model), np.load(inputs), np.load(reference), seconds)


def _environment(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)  # noqa: S603
        for what in (PACKAGES, (".[cpu,convert]",)):
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *what], check=True)  # noqa: S603
    return python


def _call(python: Path, *arguments: str) -> None:
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([str(python), *arguments], check=True, env=environment)  # noqa: S603


def _aligned(portraits: Sequence[Portrait]) -> FloatArray:
    """(n, 112, 112, 3) float32, BGR, 0 to 1: crops as DeepFace feeds them."""
    cut = [align_deepface(portrait.image, portrait.face.boxes, portrait.face.landmarks) for portrait in portraits]
    return np.concatenate(cut) / np.float32(255)


def _report(session: SharedSession, pictures: FloatArray, expected: FloatArray, seconds: float) -> int:
    actual = session.run({session.inputs[0]: np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))})[0]
    cosines = (actual * expected).sum(axis=1) / np.linalg.norm(actual, axis=1) / np.linalg.norm(expected, axis=1)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    distances = 1 - unit @ unit.T
    print("| figure | value |\n|---|---|")
    print(f"| faces | {len(pictures)} |")
    print(f"| smallest cosine of runtime and DeepFace | {cosines.min():.8f} |")
    largest = np.abs(actual - expected).max()
    print(f"| largest difference of two numbers | {largest:.2g} of {np.abs(expected).max():.2g} |")
    others = distances[~np.eye(len(unit), dtype=bool)]
    print(f"| distances between faces, for scale | {others.min():.3f} to {others.max():.3f} |")
    print(f"| seconds of the export | {seconds:.0f} |")
    return int(cosines.min() < MIN_COSINE)


if __name__ == "__main__":
    sys.exit(main())
