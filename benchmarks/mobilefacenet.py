"""A TensorFlow Lite ArcFace, exported, adopted, served and made int8: ``python -m benchmarks.mobilefacenet``

Exports ``models/mobilefacenet_arcface_112x96_int8.tflite`` of the test material as a user would, adopts the ONNX file
with a card of its own, starts a server with ``EMBEDDER`` set to it, and asks ``POST /analyze`` for each picture of
``faces/bbt``, searched in a domain that holds all others of its fold. Then int8 of the same network, calibrated and
judged on the same people. TensorFlow lives in a scratch environment, made on the first run. About 3 minutes.

  python -m benchmarks.mobilefacenet --shared ../shared
  python -m benchmarks.mobilefacenet --shared ../shared --venv convert=/path/to/an/environment
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx

from benchmarks import peers
from benchmarks.int8 import convert, quantised
from benchmarks.report import RESULTS, Report
from benchmarks.serving import served
from convert.portraits import SUFFIXES
from models.settings import Settings

TFLITE = Path("models") / "mobilefacenet_arcface_112x96_int8.tflite"
FACES = Path("faces") / "bbt"
PRESET = "mobilefacenet-112x96"
LEAST = 39 / 40
"""Share of pictures that must get their name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when too few pictures get their name, or int8 does not pass its gates."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mobilefacenet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--shared", type=Path, default=peers.ROOT.parent / "shared", metavar="DIR", help="test material"
    )
    peers.add_options(parser)
    options = parser.parse_args(arguments)
    shared = options.shared.resolve()
    if not (shared / TFLITE).is_file() or not (shared / FACES).is_dir():
        parser.error(f"{shared} holds no {TFLITE} and no {FACES}: name the test material with --shared DIR")
    python = peers.environment("convert", options.venv)
    report = Report(
        "mobilefacenet",
        "MobileFaceNet, trained with the ArcFace loss, from TensorFlow Lite to POST /analyze",
        "Leave-one-out: each picture is searched in a domain that holds every other picture but those of its fold.",
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = _converted(python, shared, folder, report)
        fine = _leave_one_out(model, shared / FACES, folder, report)
        quantities = Report(
            "mobilefacenet-int8", "int8 of the same network", "Gates: figure, and what is needed, in brackets."
        )
        fine &= quantised(model, shared / FACES, quantities)
    for one in (report, quantities):
        one.finish(options.output or RESULTS)
    return int(not fine)


def _converted(python: Path, shared: Path, folder: Path, report: Report) -> Path:
    """The network exported by TensorFlow's environment and adopted by this one."""
    exported, adopted = folder / "exported.onnx", folder / "mobilefacenet.onnx"
    faces = ("--images", str(shared / FACES))
    options = ("--weights", str(shared / TFLITE), "--preset", PRESET, "--output", str(exported), *faces)
    figures = convert(python, "export", *options)["figures"]
    parity = figures["parity"]["faces"]
    report.add(
        {"step": "export, nodes of tf2onnx and written", "figure": " to ".join(map(str, figures["nodes"].values()))}
    )
    report.add({"step": "export, seconds", "figure": figures["seconds"]})
    report.add({"step": "export, smallest cosine to TensorFlow Lite on faces", "figure": parity["cosine_min"]})
    options = (str(exported), "--preset", PRESET, "--output", str(adopted), *faces)
    answer = convert(Path(sys.executable), "adopt", *options)
    card = answer["card"]
    report.add({"step": "adopt", "figure": "; ".join(answer["checks"])})
    (width, height), mean, scale = card["input_size"], card["mean"][0], card["scale"][0]
    fed = f"{width} x {height}, {card['colour']}, (x - {mean:g}) * {scale:g}"
    report.add(
        {"step": "card", "figure": f"{fed}, template moved by {card['template_shift']}, {card['dimension']} numbers"}
    )
    return adopted


def _leave_one_out(model: Path, faces: Path, folder: Path, report: Report) -> bool:
    people = {
        one.name: sorted(p for p in one.iterdir() if p.suffix in SUFFIXES) for one in faces.iterdir() if one.is_dir()
    }
    folds = range(max(map(len, people.values())))
    settings = {"EMBEDDER": str(model), "VECTOR_DB_ENABLED": "false"}
    data = folder / "data"
    for fold in folds:
        others = folder / f"fold{fold}"
        for person, pictures in people.items():
            (others / person).mkdir(parents=True)
            for picture in pictures[:fold] + pictures[fold + 1 :]:
                shutil.copy(picture, others / person)
        command = [sys.executable, "-m", "matchers", "sync", "--domain", others.name, "--images", str(others)]
        environment = _environment(DATA_DIR=str(data), **settings)
        subprocess.run(command, check=True, env=environment, cwd=folder, stdout=subprocess.DEVNULL)  # noqa: S603
    asked = named = 0
    with served(data, **settings) as service, httpx.Client(base_url=service.url, timeout=60) as client:
        for person, pictures in people.items():
            for fold, picture in enumerate(pictures):
                asked += 1
                named += _person(client, picture, f"fold{fold}") == person
    report.add({"step": "POST /analyze, leave-one-out: right names", "figure": f"{named} of {asked}"})
    fine = named >= LEAST * asked
    report.remark(f"{named} of {asked} pictures get their name, 39 of 40 {'reached' if fine else 'MISSED'}")
    return fine


def _person(client: httpx.Client, picture: Path, domain: str) -> str | None:
    """Whom the service sees in a picture of one person; None when it names nobody, or several."""
    answer = client.post("/analyze", params={"domain": domain}, files={"image": picture.read_bytes()})
    answer.raise_for_status()
    names: list[str | None] = [face["person"] for face in answer.json()["faces"]]
    return names[0] if len(names) == 1 else None


def _environment(**variables: str) -> dict[str, str]:
    """This process's, with the models folder told and this checkout importable."""
    told = {"MODELS_DIR": str(Settings().models_path.resolve()), "PYTHONPATH": str(peers.ROOT)}
    return {**os.environ, **told, **variables}


if __name__ == "__main__":
    sys.exit(main())
