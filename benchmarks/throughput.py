"""Embeddings a second from eight threads of one process: ours on several providers, and DeepFace, same ResNet-34.

python -m benchmarks.throughput [--seconds S] [--rounds N] [--venv deepface=DIR] [--venv openvino=DIR]

Each way runs in a process and an environment of its own, in turn; a thread embeds one crop at a time, DeepFace by
``represent(detector_backend="skip")``.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx

from benchmarks import peers
from benchmarks.limits import gflop, igemm_peak, memory_bandwidth, sgemm_peak
from benchmarks.report import RESULTS, Report, median
from runtime.providers import BF16, processor_flags

TARGETS = {"int8": 2.3, "openvino-bf16": 2.0, "fp32": 1.05}
PEER = "deepface"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each way (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=8, help="(default: %(default)s)")
    peers.add_options(parser)
    options = parser.parse_args(arguments)
    report = Report(
        "throughput",
        "Embeddings a second, ArcFace ResNet-34, random weights",
        f"{options.threads} threads of one process, one crop at a time; medians of {options.rounds} rounds of "
        f"{options.seconds:g} s, all ways in turn.",
    )
    crop = str(peers.face_crops()[0])
    rates: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        ways = _ways(options.venv, stack)
        for turn in range(-1, options.rounds):
            for way in ways:
                seconds = options.seconds if turn >= 0 else 1.0
                found = way.ask(do="throughput", path=crop, threads=options.threads, seconds=seconds)
                if turn >= 0:
                    rates.setdefault(way.name, []).append(found["per_second"])
    for name, values in rates.items():
        times = median(a / b for a, b in zip(values, rates[PEER], strict=True))
        report.add({"way": name, "faces/s": median(values), "most": max(values), f"times {PEER}": times})
    missed = _judge(report, rates)
    _limits(report)
    report.finish(options.output or RESULTS)
    return int(missed)


def _ways(given: Sequence[str], stack: contextlib.ExitStack) -> list[peers.Worker]:
    own = Path(sys.executable)
    fp32, int8 = str(peers.resnet34()), str(peers.resnet34_int8())
    home = str(peers.deepface_home())
    deepface, openvino = peers.environment("deepface", given), peers.environment("openvino", given)
    variables = {"DEEPFACE_HOME": home, "DEEPFACE_BACKEND_ENGINE": "onnx"}
    chosen = [
        peers.worker(PEER, deepface, "deepface", **variables),
        peers.worker("fp32", own, "ours", EMBEDDER=fp32, EXECUTION_PROVIDER="cpu"),
        peers.worker("int8", own, "ours", EMBEDDER=int8, EXECUTION_PROVIDER="cpu"),
        peers.worker("openvino-fp32", openvino, "ours", EMBEDDER=fp32, EXECUTION_PROVIDER="openvino"),
    ]
    if processor_flags() & BF16:
        bf16 = {"EXECUTION_PROVIDER": "openvino", "INFERENCE_PRECISION": "bf16"}
        chosen.append(peers.worker("openvino-bf16", openvino, "ours", EMBEDDER=fp32, **bf16))
    return [stack.enter_context(one) for one in chosen]


def _judge(report: Report, rates: dict[str, list[float]]) -> bool:
    missed = False
    for name, target in TARGETS.items():
        if name not in rates:
            report.remark(f"{name}: not measured, the processor has no bfloat16")
            continue
        reached = median(a / b for a, b in zip(rates[name], rates[PEER], strict=True))
        missed |= reached < target
        report.remark(f"{name}: {reached:.2f} times {PEER}, {target:g} {'reached' if reached >= target else 'MISSED'}")
    return missed


def _limits(report: Report) -> None:
    work, peak, bytewise = gflop(onnx.load(peers.resnet34())), sgemm_peak(), igemm_peak()
    report.remark(
        f"yardstick: {work:.2f} GFLOP a face at numpy's sgemm peak of {peak:.0f} GFLOP/s are {peak / work:.1f} faces/s "
        f"in float32 (direct convolutions may pass it), at onnxruntime's {bytewise:.0f} in int8 {bytewise / work:.1f}; "
        f"memory bandwidth of one core {memory_bandwidth():.0f} GB/s"
    )


if __name__ == "__main__":
    sys.exit(main())
