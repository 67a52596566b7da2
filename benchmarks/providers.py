"""One face on ONNX Runtime's CPU provider and on OpenVINO, in fp32 and bf16: milliseconds, and cosines to the CPU.

python -m benchmarks.providers [--repeat N] [--venv openvino=DIR]

Each way runs in a process of its own, all in turn, for SFace of the default pack and a ResNet-34 with random weights.
``onnxruntime`` is the network as the file has it, with ONNX Runtime's defaults: what ``cpu`` was improved from.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort

from benchmarks import peers
from benchmarks.report import RESULTS, Report, median, ratio
from models.card import load_card
from models.settings import Settings
from runtime.providers import BF16, processor_flags
from runtime.session import as_batch

TARGETS = {("sface", "openvino-fp32"): 1.6, ("sface", "openvino-bf16"): 2.2, ("r34", "openvino-bf16"): 2.0}
PLAIN = "onnxruntime"
INNER = 5
"""Embeddings of one question; their median is one measurement."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=20, help="measurements of each way (default: %(default)s)")
    peers.add_options(parser)
    options = parser.parse_args(arguments)
    note = f"Milliseconds of one face at a time; medians of {options.repeat} rounds, all ways in turn."
    report = Report("providers", "One face by provider and precision", note)
    missed = False
    for name, path in (("sface", Settings().models_path / "sface.onnx"), ("r34", peers.resnet34())):
        missed |= _measure(report, name, path.resolve(), options)
    report.finish(options.output or RESULTS)
    return int(missed)


def _measure(report: Report, name: str, path: Path, options: argparse.Namespace) -> bool:
    crops = peers.face_crops()
    times: dict[str, list[float]] = {PLAIN: []}
    with contextlib.ExitStack() as stack:
        ways = _ways(options.venv, stack, str(path))
        plain = _plain(path, crops[0])
        for turn in range(-2, options.repeat):
            for way in ways:
                found = way.ask(do="crop", path=str(crops[0]), repeat=INNER)
                if turn >= 0:
                    times.setdefault(way.name, []).append(found["ms"])
            if turn >= 0:
                times[PLAIN].append(plain())
        rows = {way.name: _vectors(way, crops) for way in ways}
    for way_name, values in times.items():
        cosine = float((rows[way_name] * rows["cpu"]).sum(axis=1).min()) if way_name in rows else None
        report.add({
            "model": name, "way": way_name, "median, ms": median(values), "least, ms": min(values),
            f"times as fast as {PLAIN}": ratio(times, PLAIN, way_name),
            "times as fast as cpu": ratio(times, "cpu", way_name),
            "least cosine to cpu": None if cosine is None else f"{cosine:.6f}",
        })  # fmt: skip
    missed = False
    for (model, way_name), target in TARGETS.items():
        if model == name and way_name in times:
            reached = ratio(times, PLAIN, way_name)
            missed |= reached < target
            verdict = "reached" if reached >= target else "MISSED"
            report.remark(f"{name}, {way_name}: {reached:.2f} times as fast as {PLAIN}, {target:g} {verdict}")
    return missed


def _ways(given: Sequence[str], stack: contextlib.ExitStack, embedder: str) -> list[peers.Worker]:
    openvino = peers.environment("openvino", given)
    chosen = [
        peers.worker("cpu", Path(sys.executable), "ours", EMBEDDER=embedder, EXECUTION_PROVIDER="cpu"),
        peers.worker("openvino-fp32", openvino, "ours", EMBEDDER=embedder, EXECUTION_PROVIDER="openvino"),
    ]
    if processor_flags() & BF16:
        bf16 = {"EXECUTION_PROVIDER": "openvino", "INFERENCE_PRECISION": "bf16"}
        chosen.append(peers.worker("openvino-bf16", openvino, "ours", EMBEDDER=embedder, **bf16))
    return [stack.enter_context(one) for one in chosen]


def _plain(path: Path, crop: Path) -> Callable[[], float]:
    """One measurement of ONNX Runtime as it comes."""
    from benchmarks.report import interleaved  # noqa: PLC0415

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    image = cv2.imread(str(crop))
    assert image is not None
    feeds = {session.get_inputs()[0].name: as_batch(np.asarray(image[None], np.uint8), load_card(path))}
    return lambda: median(interleaved({PLAIN: lambda: session.run(None, feeds)}, INNER, warm_up=1)[PLAIN])


def _vectors(way: peers.Worker, crops: Sequence[Path]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(way.ask(do="vectors", paths=[str(crop) for crop in crops])["vectors"], np.float32)


if __name__ == "__main__":
    sys.exit(main())
