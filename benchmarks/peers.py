"""What comparisons with peers share: their environments, their processes, the models and pictures that all get."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx

from matchers.demo import demo_picture
from models.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "bench"
SCRFD = ROOT.parent / "shared" / "models" / "scrfd_2.5g_kps.onnx"

# What is installed in turn, each with the options of its own: peers ask for an OpenCV with windows, which servers lack.
_HEADLESS = ("--force-reinstall", "--no-deps")
ENVIRONMENTS: Mapping[str, Sequence[Sequence[str]]] = {
    "insightface": (
        ("onnxruntime", "onnx", "opencv-python-headless<5", "requests", "tqdm", "scikit-image", "matplotlib"),
        ("--no-deps", "insightface==2.1"),
    ),
    # It imports werkzeug without asking for it.
    "deepface": (("deepface==0.0.103", "werkzeug"), (*_HEADLESS, "opencv-contrib-python-headless>=4.12")),
    "deepface-0.0.96": (
        ("deepface==0.0.96", "tensorflow-cpu==2.19.*", "tf_keras==2.19.*"),
        (*_HEADLESS, "opencv-python-headless>=4.12,<5"),
    ),
    "faiss": (("faiss-cpu", "numpy"),),
    "openvino": ((".[openvino]",),),
    "convert": ((".[cpu,convert]",),),
    "arcface-parity": (("deepface==0.0.96", "tensorflow-cpu==2.19.*", "tf_keras==2.19.*"), (".[cpu,convert]",)),
    "oldest": (("onnxruntime==1.22.*", "numpy"),),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that every comparison has."""
    parser.add_argument(
        "--venv",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help=f"use this environment ({', '.join(ENVIRONMENTS)}) and make none under {WORK.relative_to(ROOT)}",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write (default: benchmarks/results)")


def environment(name: str, given: Sequence[str]) -> Path:
    """The Python of an environment: one that the command line names, else one made here once, and anew when what
    belongs into it has changed."""
    named = dict(text.partition("=")[::2] for text in given)
    folder = Path(named.get(name) or WORK / "venvs" / name).absolute()
    python, done = folder / "bin" / "python", folder / ".complete"
    content = json.dumps(ENVIRONMENTS[name])
    if name in named or (done.exists() and done.read_text() == content):
        return python
    print(f"making the environment {folder}, once ...", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    for what in ENVIRONMENTS[name]:
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what])
    done.write_text(content)
    return python


@dataclass
class Worker:
    """A process that measures one way; see ``benchmarks/worker.py``."""

    name: str
    process: subprocess.Popen[str]
    about: str = ""

    def ask(self, **job: Any) -> dict[str, Any]:
        """The answer to one job."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(job), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended; see {WORK / f'{self.name}.log'}")
        found: dict[str, Any] = json.loads(answer)
        return found


@contextlib.contextmanager
def worker(name: str, python: Path, *arguments: str, script: str = "worker.py", **variables: str) -> Iterator[Worker]:
    """A worker in ``python``'s environment, ready for jobs."""
    WORK.mkdir(parents=True, exist_ok=True)
    command = [str(python), str(ROOT / "benchmarks" / script), *arguments]
    settings = {field.upper() for field in Settings.model_fields}
    plain = {key: value for key, value in os.environ.items() if key.upper() not in settings}
    models = {"MODELS_DIR": str(Settings().models_path.resolve()), "PYTHONPATH": str(ROOT)}
    with (WORK / f"{name}.log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603
            command,
            env={**plain, **models, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            found = Worker(name, process)
            assert process.stdout is not None
            ready = process.stdout.readline()
            if not ready:
                raise SystemExit(f"{name} did not start; see {WORK / f'{name}.log'}")
            found.about = json.loads(ready)["about"]
            yield found
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def resnet34() -> Path:
    """ArcFace ResNet-34 with random weights, made once (:mod:`benchmarks.resnet34`)."""
    return _made("r34.onnx", "benchmarks.resnet34", "{output}")


def resnet34_int8() -> Path:
    """The same, quantised once."""
    source = str(resnet34())
    return _made(
        "r34-int8.onnx", "convert", "export", "--weights", source, "--precision", "int8", "--force", "--output",
        "{output}",
    )  # fmt: skip


def insightface_pack() -> Path:
    """A folder for ``FaceAnalysis``: SCRFD, and the ResNet-34 with planes as input, as InsightFace feeds it."""
    folder = WORK / "pack"
    if not (folder / "scrfd_2.5g_kps.onnx").exists():
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(_planar(onnx.load(resnet34())), folder / "r34.onnx")
        shutil.copy(SCRFD, folder / SCRFD.name)
    return folder


def deepface_home() -> Path:
    """A home with the ResNet-34 as DeepFace's ArcFace weights, and the cascades that OpenCV 5 no longer brings."""
    home = WORK / "deepface-home"
    weights = home / ".deepface" / "weights"
    if not (weights / "arcface_weights.onnx").exists():
        weights.mkdir(parents=True, exist_ok=True)
        for name in ("haarcascade_frontalface_default.xml", "haarcascade_eye.xml"):
            shutil.copy(Path(cv2.data.haarcascades) / name, weights)
        shutil.copy(resnet34(), weights / "arcface_weights.onnx")
    return home


def group_picture() -> Path:
    """1280 x 886, six people."""
    path = demo_picture()
    if path is None:
        raise SystemExit("the demo picture is not installed: run `make run` once")
    return path


def portrait(width: int = 1382, height: int = 1868) -> Path:
    """One face in a large picture: scikit-image's astronaut enlarged to the full width, grey below, JPEG."""
    path = WORK / f"portrait-{width}x{height}.jpg"
    if not path.exists():
        from skimage.data import astronaut  # noqa: PLC0415

        image = np.full((height, width, 3), 128, np.uint8)
        enlarged = cv2.resize(astronaut()[:, :, ::-1], (width, width), interpolation=cv2.INTER_CUBIC)
        image[: min(width, height)] = enlarged[:height]
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return path


def face_crops() -> list[Path]:
    """The faces of the group picture, 112 x 112, aligned."""
    from runtime.align import align_similarity  # noqa: PLC0415
    from runtime.decode import decode  # noqa: PLC0415
    from runtime.engine import open_engine  # noqa: PLC0415

    folder = WORK / "crops"
    if not folder.exists():
        image = decode(group_picture().read_bytes())
        found = open_engine(Settings(execution_provider="cpu")).detector.detect(image)
        folder.mkdir(parents=True)
        for number, crop in enumerate(align_similarity(image, found.landmarks)):
            cv2.imwrite(str(folder / f"{number}.png"), crop)
    return sorted(folder.iterdir())


def _planar(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network without the transposition at its start."""
    first = model.graph.node[0]
    if first.op_type != "Transpose":
        raise SystemExit("the ResNet-34 does not start with a transposition any more")
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == first.output[0]:
                node.input[index] = first.input[0]
    del model.graph.node[0]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[1].dim_value, dims[2].dim_value, dims[3].dim_value = 3, 112, 112
    return model


def _made(name: str, *command: str) -> Path:
    path = WORK / name
    if not path.exists():
        print(f"making {path}, once ...", file=sys.stderr)
        path.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", *(part.format(output=path) for part in command)])
    return path


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)  # noqa: S603
