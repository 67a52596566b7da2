"""int8 of embedders, as ``python -m convert export`` makes it: ``python -m benchmarks.int8 [MODEL.onnx ...]``

Without models: SFace, and ArcFace's ResNet-34 with random weights (:mod:`benchmarks.resnet34`), whose accuracy means
nothing. Calibrated on one half of the people of ``--images`` and judged by all pairs of them. About 2 minutes.

  python -m benchmarks.int8 --images ../shared/faces/bbt
  python -m benchmarks.int8 --images photos arcface.onnx
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.report import RESULTS, Report
from models.settings import Settings
from models.store import ModelStore


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a network does not pass its gates."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int8", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="*", metavar="MODEL.onnx", help="fp32, with a card")
    faces = peers.ROOT.parent / "shared" / "faces" / "bbt"
    parser.add_argument("--images", type=Path, default=faces, metavar="DIR", help="people (default: the test material)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write (default: benchmarks/results)")
    options = parser.parse_args(arguments)
    models = options.models or [ModelStore(Settings().models_path).resolve("sface"), peers.resnet34()]
    report = Report("int8", "int8 of embedders, as convert makes it", "Gates: figure, and what is needed, in brackets.")
    fine = [quantised(model, options.images.resolve(), report) for model in models]
    report.finish(options.output or RESULTS)
    return int(not all(fine))


def quantised(model: Path, faces: Path, report: Report) -> bool:
    """Make int8 of a network and put a row into the report; whether all gates hold."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--weights", str(model), "--precision", "int8", "--calibration", str(faces), "--force")
        answer = convert(Path(sys.executable), "export", *options, "--output", str(Path(folder) / "int8.onnx"))
    figures, measured = answer["figures"], answer["figures"]["measured"]
    gates = {gate["name"]: f"{gate['figure']:.4f} ({gate['limit']:.4f})" for gate in figures["gates"]}
    report.add({
        "network": model.stem,
        **gates,
        "fp32, ms": measured["milliseconds_fp32"], "int8, ms": measured["milliseconds_int8"],
        "times as fast": measured["speed_up"], "times, 4 faces": measured["speed_up_together"],
        "fp32, MB": measured["bytes_fp32"] / 1e6, "int8, MB": measured["bytes_int8"] / 1e6,
    })  # fmt: skip
    report.remark(f"{model.stem}: ranges by {measured['ranges']}, in float: {measured['in_float']}")
    for sentence in figures["sentences"]:
        report.remark(f"{model.stem}: {sentence}")
    return all(gate["holds"] for gate in figures["gates"])


def convert(python: Path, *arguments: str) -> dict[str, Any]:
    """What ``python -m convert`` answers as JSON in an environment; what it says stands on standard error."""
    settings = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment = {**os.environ, **settings, "PYTHONPATH": str(peers.ROOT)}
    models = ("--models-dir", str(Settings().models_path.resolve()))
    command = [str(python), "-m", "convert", *arguments, *models, "--json"]
    done = subprocess.run(command, check=True, env=environment, cwd=peers.ROOT, stdout=subprocess.PIPE)  # noqa: S603
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    sys.exit(main())
