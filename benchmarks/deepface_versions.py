"""DeepFace in environments of its own, with ArcFace of random weights, for the comparisons with it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from benchmarks.report import RESULTS

ROOT = Path(__file__).resolve().parent.parent
PEER = Path(__file__).with_name("deepface_peer.py")

# 0.0.103 asks for OpenCV 5, whose `opencv-contrib` still has the class but ships no cascades; they lie in OpenCV 4.
CASCADES = ("haarcascade_frontalface_default.xml", "haarcascade_eye.xml")

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


@dataclass(frozen=True, slots=True)
class Versions:
    """DeepFace 0.0.96 on TensorFlow and 0.0.103 on ONNX Runtime with the same weights, and these weights for us.

    Attributes:
        work: folder for files.
        model: the weights, converted by ``python -m convert export``.
    """

    old: Peer
    new: Peer
    work: Path
    model: Path


def command_line(prog: str, doc: str) -> argparse.ArgumentParser:
    """The options that these comparisons share; a description from a module's docstring."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {prog}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    work = Path("build/deepface-distances")
    parser.add_argument("--venv96", type=Path, help="environment with DeepFace 0.0.96, TensorFlow and `.[convert]`")
    parser.add_argument("--work", type=Path, default=work, help=f"environments and files (default: {work})")
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="folder of the table (default: benchmarks/results)"
    )
    return parser


def add_galleries(parser: argparse.ArgumentParser) -> None:
    """The options of the comparisons that search galleries."""
    parser.add_argument("--images", type=Path, required=True, help="PNG pictures of faces, <person>/<picture>")
    parser.add_argument("--venv103", type=Path, help="environment with DeepFace 0.0.103 and onnxruntime")


def open_versions(options: argparse.Namespace) -> Versions:
    """Both versions, their weights, and ours; what is not there is made."""
    work, images = options.work.resolve(), options.images.resolve()
    old = open_peer("0.0.96", options.venv96 or work / "venv96", work, "tensorflow", swaps=True)
    new = open_peer("0.0.103", options.venv103 or work / "venv103", work, "onnx", swaps=False)
    h5, onnx = old.weights / "arcface_weights.h5", new.weights / "arcface_weights.onnx"
    if not (h5.exists() and onnx.exists()):
        old.call(PEER, "weights", images, h5, onnx)
    model = work / "arcface.onnx"
    if not model.exists():
        old.call("-m", "convert", "export", "--weights", h5, "--output", model, "--images", images)
    return Versions(old, new, work, model)


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


def copied(images: Path, folder: Path) -> Path:
    """The pictures in a folder of their own, since ``find`` writes its gallery beside them."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(images, folder)
    for path in (folder, *folder.rglob("*/")):
        path.chmod(0o755)
    return folder
