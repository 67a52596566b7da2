"""Models on the oldest ONNX Runtime that this project admits: ``python -m benchmarks.oldest_runtime [MODEL.onnx ...]``

Runs each model there and here on the same random pictures, alone and four at a time, and compares what comes out.
Without models: those of the default pack. The scratch environment is made on the first run.

  python -m benchmarks.oldest_runtime arcface.onnx arcface-int8.onnx
  python -m benchmarks.oldest_runtime --venv oldest=/path/to/an/environment arcface.onnx
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from benchmarks import peers
from benchmarks.report import RESULTS, Report
from convert.parity import MIN_COSINE, compare_outputs
from models.settings import Settings
from models.store import ModelStore
from models.verify import signature
from runtime.session import SharedSession

SIDE = 320
"""Of pictures for detectors of any size."""
LEAST_INT8 = 0.99
"""For int8 networks: the rounding of old and new kernels differs by a level now and then."""

_RUN = """
import sys
import numpy as np
import onnxruntime as ort
session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
with np.load(sys.argv[2]) as pictures:
    results = [session.run(None, {session.get_inputs()[0].name: pictures[name]}) for name in pictures.files]
named = {f"{number}_{i}": value for number, values in enumerate(results) for i, value in enumerate(values)}
np.savez(sys.argv[3], version=ort.__version__, **named)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a model does not run there, or gives something else."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.oldest_runtime",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", type=Path, nargs="*", metavar="MODEL.onnx")
    peers.add_options(parser)
    options = parser.parse_args(arguments)
    store = ModelStore(Settings().models_path)
    models = options.models or [store.resolve(name) for name in ("retinaface", "yunet", "sface")]
    python = peers.environment("oldest", options.venv)
    report = Report("oldest-runtime", "Models on the oldest ONNX Runtime that is admitted, against the newest")
    fine = True
    for model in models:
        fine &= _compare(python, model, report)
    report.finish(options.output or RESULTS)
    return int(not fine)


def _compare(python: Path, model: Path, report: Report) -> bool:
    session = SharedSession(model)
    quantised = any(node.op_type == "QuantizeLinear" for node in onnx.load(model).graph.node)
    least = LEAST_INT8 if quantised else MIN_COSINE
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        pictures = _pictures(model, session)
        np.savez(inputs, **{f"batch{len(batch)}": batch for batch in pictures})
        done = subprocess.run(  # noqa: S603
            [str(python), "-c", _RUN, str(model.resolve()), str(inputs), str(outputs)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            report.remark(f"{model.name} does NOT run: {done.stderr.strip().splitlines()[-1]}")
            return False
        with np.load(outputs) as there:
            version = str(there["version"])
            cosines = [
                compare_outputs([there[f"{number}_{i}"] for i in range(len(here))], here).cosine_min
                for number, here in enumerate(session.run({session.inputs[0]: batch}) for batch in pictures)
            ]
    fine = min(cosines) >= least
    report.add({"model": model.name, "onnxruntime": version, "batches": " and ".join(str(len(b)) for b in pictures),
                "smallest cosine": f"{min(cosines):.7f}", "needed": f"{least}"})  # fmt: skip
    if not fine:
        report.remark(f"{model.name} gives something ELSE there")
    return fine


def _pictures(model: Path, session: SharedSession) -> list[np.ndarray]:
    """Network inputs: one picture, and for embedders four at once."""
    (given,), _ = signature(model)
    random = np.random.default_rng(0)
    sides = [side if isinstance(side, int) else SIDE for side in given["shape"][1:]]
    counts = (1, 4) if session.card.task == "embedding" else (1,)
    low, high = (
        (0.0 - session.card.mean[0]) * session.card.scale[0],
        (255.0 - session.card.mean[0]) * session.card.scale[0],
    )
    return [random.uniform(low, high, (count, *sides)).astype(np.float32) for count in counts]


if __name__ == "__main__":
    sys.exit(main())
