"""``python -m convert export`` for ``retinaface.h5``: the graph is built here and, where the package retina-face is
installed with TensorFlow, compared with what that package computes."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from convert.adopt import detect_once
from convert.arcface import read_legacy_weights
from convert.errors import ParityError
from convert.export import MAX_DIFFERENCE, Exported, Say, write_report
from convert.parity import MIN_COSINE, Parity, compare_outputs
from convert.portraits import Portrait
from convert.repair import tool_versions, with_card
from convert.retinaface import build_retinaface, check_weights
from convert.write import write_model
from models.presets import Changes, Origin, find_preset, make_card
from models.store import file_sha256
from models.verify import signature
from runtime.session import SharedSession

SHAPES = ((320, 256), (161, 225))
"""Height and width of pictures to compare on; the second cannot be halved evenly anywhere."""

Array = npt.NDArray[np.float32]


def export_retinaface(
    weights: Path,
    output: Path,
    portraits: Callable[[], Sequence[Portrait]],
    *,
    changes: Changes,
    report: Path | None = None,
    say: Say = lambda _text: None,
    divisor: int = 1,
) -> Exported:
    """Write the network of ``weights`` with a card, after it found faces in pictures of faces.

    Args:
        weights: retina-face's ``retinaface.h5``.
        output: where to.
        portraits: faces to try it on, asked for once the network is built.
        changes: what the card should say instead of the preset.
        report: where to write the figures as JSON.
        say: told each step.
        divisor: of all channels, for small networks in tests.

    Raises:
        ConvertError: the weights are of another network or damaged, the networks differ, or no face is found.
    """
    start = time.monotonic()
    say(f"{weights.name}: building RetinaFace with a ResNet-50 from it")
    model = build_retinaface(check_weights(read_legacy_weights(weights), weights.name, divisor))
    preset = replace(find_preset("deepface-retinaface"), layout="NCHW")
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "trial.onnx"
        trial.write_bytes(model.SerializeToString())
        card = make_card(preset, changes, output.stem, signature(trial), Origin(weights.name, file_sha256(weights)))
        parity = _compare(weights, model, say)
        card = replace(card, versions=tool_versions(), parity={} if parity is None else parity.figures())
        trial.write_bytes(with_card(model, card))
        seen = detect_once(SharedSession(trial), portraits)
    say(f"{weights.name}: {seen}")
    figures: dict[str, Any] = {
        "source": "retina-face's RetinaFace (ResNet-50)",
        "nodes": {"written": len(model.graph.node)},
        "parity": {} if parity is None else {"random": parity.figures()},
        "checks": [seen],
        "seconds": round(time.monotonic() - start, 1),
    }
    if report is not None:
        write_report(report, figures)
    return Exported(output, write_model(output, with_card(model, card)), card, figures)


def _compare(weights: Path, model: onnx.ModelProto, say: Say) -> Parity | None:
    """Parity with the package on random pictures; None where it or TensorFlow is not installed."""
    try:
        run = package_network(weights)
    except ImportError as error:
        say(
            f"{weights.name}: not compared with the package ({error}): for that, `pip install '.[cpu,convert]' gdown` "
            "and `pip install --no-deps retina-face` into this environment"
        )
        return None
    import onnxruntime as ort  # noqa: PLC0415

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    worst = None
    for height, width in SHAPES:
        picture = random.integers(0, 256, (1, height, width, 3)).astype(np.float32)
        actual = session.run(None, {"data": np.ascontiguousarray(picture.transpose(0, 3, 1, 2))})
        found = compare_outputs(run(picture), actual)
        worst = found if worst is None or found.cosine_min < worst.cosine_min else worst
        if found.cosine_min < MIN_COSINE or found.max_abs_diff > MAX_DIFFERENCE * max(found.max_abs_value, 1):
            raise ParityError(
                f"The ONNX network differs from retina-face's: cosine {found.cosine_min:.7f}, largest difference "
                f"{found.max_abs_diff:.3g} of {found.max_abs_value:.3g}. Nothing was written."
            )
    return worst


def package_network(weights: Path) -> Callable[[Array], list[Array]]:
    """The network as the package retina-face builds it: (n, h, w, 3) float32 RGB to its nine outputs.

    Raises:
        ImportError: it, or what it needs, is not installed.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    from retinaface.model import retinaface_model  # noqa: PLC0415

    retinaface_model.load_weights = lambda model: model.load_weights(str(weights)) or model
    network = retinaface_model.build_model()
    return lambda picture: [np.asarray(output) for output in network(picture, training=False)]
