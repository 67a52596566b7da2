"""From a picture to the embeddings of its faces: ours, InsightFace and DeepFace with the same ResNet-34 weights.

python -m benchmarks.pictures [--repeat N] [--venv insightface=DIR] [--venv deepface=DIR]

Each way runs in a process and an environment of its own, all in turn. The weights are random, and made here once; the
pictures come out of packages. InsightFace detects with SCRFD-2.5g, and is left out where ../shared/models has none.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from benchmarks import peers
from benchmarks.limits import igemm_peak, memory_bandwidth, sgemm_peak
from benchmarks.report import RESULTS, Report, median, ratio

TARGETS = {
    ("t1.jpg", "insightface", "int8"): 2.5,
    ("t1.jpg", "deepface", "int8"): 4.0,
    ("t1.jpg", "insightface", "fp32"): 1.2,
    ("portrait-1382x1868.jpg", "insightface", "int8"): 2.5,
    ("portrait-1382x1868.jpg", "deepface", "int8"): 8.0,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=15, help="times that each picture is read (default: %(default)s)")
    peers.add_options(parser)
    options = parser.parse_args(arguments)
    note = (
        "Milliseconds from a file to the embeddings of all of its faces, medians; a ratio is the median of the ratios "
        "round by round. Ours detects by RetinaFace-MobileNet, InsightFace by SCRFD-2.5g, DeepFace by its default."
    )
    report = Report("pictures", "Picture to embeddings, ArcFace ResNet-34, random weights", note)
    with contextlib.ExitStack() as stack:
        ways = _ways(options.venv, stack, report)
        pictures = (peers.group_picture(), peers.portrait())
        times: dict[tuple[str, str], list[float]] = {}
        for picture in pictures:
            faces: dict[str, int] = {}
            for turn in range(-2, options.repeat):
                for way in ways:
                    found = way.ask(do="picture", path=str(picture.resolve()))
                    faces[way.name] = found["faces"]
                    if turn >= 0:
                        times.setdefault((picture.name, way.name), []).append(found["ms"])
            for way in ways:
                report.add(_row(picture.name, way.name, faces[way.name], times))
    missed = _judge(report, times)
    report.remark(
        f"matrix products: {sgemm_peak():.0f} GFLOP/s in float32, {igemm_peak():.0f} GOP/s in int8; "
        f"memory bandwidth of one core {memory_bandwidth():.0f} GB/s"
    )
    report.finish(options.output or RESULTS)
    return int(missed)


def _ways(given: Sequence[str], stack: contextlib.ExitStack, report: Report) -> list[peers.Worker]:
    own = peers.Path(sys.executable)
    fp32, int8 = str(peers.resnet34()), str(peers.resnet34_int8())
    cpu = {"EXECUTION_PROVIDER": "cpu"}
    ways = [
        stack.enter_context(peers.worker("fp32", own, "ours", EMBEDDER=fp32, **cpu)),
        stack.enter_context(peers.worker("int8", own, "ours", EMBEDDER=int8, **cpu)),
    ]
    if peers.SCRFD.exists():
        python = peers.environment("insightface", given)
        ways.append(
            stack.enter_context(peers.worker("insightface", python, "insightface", str(peers.insightface_pack())))
        )
    else:
        report.remark(f"InsightFace is left out: {os.path.relpath(peers.SCRFD, peers.ROOT)} is not there")
    python, home = peers.environment("deepface", given), str(peers.deepface_home())
    variables = {"DEEPFACE_HOME": home, "DEEPFACE_BACKEND_ENGINE": "onnx"}
    ways.append(stack.enter_context(peers.worker("deepface", python, "deepface", **variables)))
    return ways


def _row(
    picture: str, way: str, faces: int, times: dict[tuple[str, str], list[float]]
) -> dict[str, str | int | float | None]:
    mine = times[picture, way]
    row: dict[str, str | int | float | None] = {
        "picture": picture, "way": way, "faces": faces, "median, ms": median(mine), "least, ms": min(mine),
    }  # fmt: skip
    for ours in ("int8", "fp32"):
        if way in {"insightface", "deepface"}:
            row[f"ours in {ours} is faster, times"] = ratio(
                {"peer": mine, "ours": times[picture, ours]}, "peer", "ours"
            )
    return row


def _judge(report: Report, times: dict[tuple[str, str], list[float]]) -> bool:
    missed = False
    for (picture, peer, ours), target in TARGETS.items():
        if (picture, peer) not in times:
            continue
        reached = ratio({"peer": times[picture, peer], "ours": times[picture, ours]}, "peer", "ours")
        missed |= reached < target
        verdict = "reached" if reached >= target else "MISSED"
        report.remark(f"{picture}, {ours} against {peer}: {reached:.2f} times as fast, {target:g} {verdict}")
    return missed


if __name__ == "__main__":
    sys.exit(main())
