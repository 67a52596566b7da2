"""``python -m convert export``: weights of another framework to the ONNX file that the runtime serves, proven equal."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx

from convert.errors import ConvertError, ParityError, PrecisionError, RepairError
from convert.framework import Source, first_line
from convert.keras_passes import KERAS_PASSES
from convert.parity import EMBEDDER_BATCHES, MIN_COSINE, Parity, compare_outputs
from convert.passes import apply, copy_model, drop_passthrough, fold_constants
from convert.portraits import Portrait, crops
from convert.repair import repair, tool_versions, with_card
from convert.rounding_passes import ROUNDING_PASSES
from convert.tensorflow import open_source
from convert.views import views
from convert.watch import quiet_session
from convert.weights import Kind, recognise
from convert.write import write_atomic, write_model
from models.card import ModelCard
from models.errors import PresetError
from models.presets import Changes, Origin, find_preset, make_card
from models.store import file_sha256
from models.verify import signature
from models.versions import installed_versions
from runtime.embed import Embedder
from runtime.session import SharedSession, as_batch

if TYPE_CHECKING:
    from convert.precision import Precise

Say = Callable[[str], None]
MAX_DIFFERENCE = 1e-4
"""Largest difference of two numbers, in parts of the output's largest."""

INT8_COSINE = 0.9
"""A source that rounds to int8 as it runs cannot be met more closely than its own rounding."""

_ARCFACE_KINDS = (Kind.LEGACY_WEIGHTS, Kind.KERAS3_WEIGHTS)
_AGREES = 0.999999
_FRAMEWORKS = ("tensorflow-cpu", "tensorflow", "tf-keras", "keras", "tf2onnx")


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported model.

    Attributes:
        path: the file written.
        sha256: of the file.
        card: its card.
        figures: parity on random pictures and on faces, node counts, seconds.
    """

    path: Path
    sha256: str
    card: ModelCard
    figures: Mapping[str, Any]


Change = Callable[[onnx.ModelProto, ModelCard], "Precise"]
"""Gives a network with its card in another precision."""


def export(
    weights: Path,
    output: Path,
    portraits: Callable[[], Sequence[Portrait]],
    *,
    preset_name: str | None = None,
    changes: Changes,
    change: Change | None = None,
    report: Path | None = None,
    say: Say = lambda _text: None,
) -> Exported:
    """Write ``weights`` as an ONNX file with a card, after proving that both compute the same.

    Args:
        weights: see :class:`convert.weights.Kind`.
        output: where to; nothing is written there unless the networks agree.
        portraits: faces to compare on, asked for once the network is converted.
        preset_name: how the network wants to be fed; default: as DeepFace feeds its ArcFace.
        changes: what the card should say instead of the preset.
        change: changes the precision of what was proven equal; None leaves it in fp32.
        report: where to write the figures as JSON, also when the networks differ or lose too much.
        say: told each step.

    Raises:
        ConvertError: the weights cannot be used, the networks differ, or the file cannot be written.
    """
    start = time.monotonic()
    kind = recognise(weights)
    if kind is Kind.ONNX:
        raise ConvertError(
            f"{weights} is an ONNX network already. Give it a card with "
            f"`python -m convert adopt {weights} --preset NAME --output {output}`; one that has a card can be exported "
            "with --precision int8 or fp16."
        )
    if preset_name is None and kind not in (*_ARCFACE_KINDS, Kind.RETINAFACE):
        raise PresetError(
            f"{weights} is {kind}, which does not tell how it wants to be fed. Name a preset with --preset; "
            "`python -m convert adopt --help` lists them."
        )
    if kind is Kind.RETINAFACE:
        if change is not None:
            raise PrecisionError(f"{weights} is a detector; only embedders can be had in another precision.")
        # Imported here: it builds on this module.
        from convert.export_retinaface import export_retinaface  # noqa: PLC0415

        return export_retinaface(weights, output, portraits, changes=changes, report=report, say=say)
    preset = replace(find_preset(preset_name or "deepface-arcface"), layout="NCHW")
    say(f"{weights.name}: {kind}; opening it in TensorFlow")
    source = open_source(weights, kind)
    say(f"{weights.name}: {source.what}; converting with tf2onnx")
    raw = source.to_onnx()
    say(f"{weights.name}: simplifying {len(raw.graph.node)} nodes")
    model = simplify(raw)
    origin = Origin(weights.name, "" if weights.is_dir() else file_sha256(weights))
    faces = portraits()
    if not faces:
        say("no pictures of faces are installed to compare on: name some with --images DIR; random pictures must do")
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "trial.onnx"
        trial.write_bytes(model.SerializeToString())
        card = make_card(preset, changes, output.stem, signature(trial), origin)
        card = replace(card, versions={**installed_versions(_FRAMEWORKS), **tool_versions()})
        trial.write_bytes(with_card(model, card))
        say(f"{weights.name}: comparing {len(model.graph.node)} nodes with the source, on random pictures and on faces")
        session = SharedSession(trial)
        found, layer = _compare(source, session, model, faces)
    figures = {
        "source": source.what,
        "kind": str(kind),
        "nodes": {"tf2onnx": len(raw.graph.node), "written": len(model.graph.node)},
        "parity": {name: parity.figures() for name, parity in found.items()},
        "first_difference": layer,
        "seconds": round(time.monotonic() - start, 1),
    }
    if report is not None:
        write_report(report, figures)
    for name, parity in found.items():
        _require(parity, source.exact, name, layer)
    worst = {name: value for part in found for name, value in _prefixed(part, found[part]).items()}
    notes = (
        card.notes
        if source.exact
        else f"{card.notes} The source rounds to int8 as it runs; this file does not.".strip()
    )
    card = replace(card, parity=worst, notes=notes)
    if change is not None:
        model, card, figures = _changed(change, model, card, figures, report)
    return Exported(output, write_model(output, with_card(model, card)), card, figures)


def write_report(path: Path, figures: Mapping[str, Any]) -> None:
    """Write figures as JSON.

    Raises:
        ConvertError: the file cannot be written.
    """
    write_atomic(path, (json.dumps(figures, ensure_ascii=False, indent=1) + "\n").encode())


def _changed(
    change: Change, model: onnx.ModelProto, card: ModelCard, figures: Mapping[str, Any], report: Path | None
) -> tuple[onnx.ModelProto, ModelCard, dict[str, Any]]:
    """The network in another precision, its card, and the figures of both; the report is brought up to date."""
    try:
        made = change(model, card)
    except PrecisionError as error:
        if report is not None:
            write_report(report, {**figures, **error.figures})
        raise
    figures = {**figures, **made.figures}
    if report is not None:
        write_report(report, figures)
    return made.model, made.card, figures


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """What tf2onnx wrote, as few nodes as the passes leave, for batches of any length.

    Raises:
        RepairError: a pass cannot treat the network, or the result is no valid ONNX.
    """
    try:
        simple = apply(model, (*ROUNDING_PASSES, fold_constants, drop_passthrough, *KERAS_PASSES))
    except Exception as error:
        raise RepairError(f"The network cannot be simplified: {first_line(error)}.") from error
    return repair(simple, any_batch=True)


def _compare(
    source: Source, session: SharedSession, model: onnx.ModelProto, portraits: Sequence[Portrait]
) -> tuple[dict[str, Parity], str | None]:
    """Parity by kind of picture, and the first layer at which the networks differ when they do."""
    card = session.card
    width, height = card.input_size
    random = np.random.default_rng(0)
    found = {}
    batches = [random.integers(0, 256, (n, height, width, 3)).astype(np.float32) for n in EMBEDDER_BATCHES]
    found["random"] = _parity(source, session, [as_batch(batch, card) for batch in batches])
    if portraits:
        seen = views(portraits, max(len(portraits), EMBEDDER_BATCHES[-1]))
        faces = as_batch(crops(Embedder(session), seen), card)
        batches = [faces[:1], *(faces[start : start + 8] for start in range(0, len(faces), 8))]
        found["faces"] = _parity(source, session, batches)
    layer = None
    if any(_problem(parity, source.exact) for parity in found.values()):
        # One picture shows most faults, several those of a batch.
        for count in (1, 2):
            pictures = as_batch(random.integers(0, 256, (count, height, width, 3), np.uint8), card)
            layer = layer or first_difference(source, model, pictures)
    return found, layer


def _parity(source: Source, session: SharedSession, batches: Sequence[npt.NDArray[np.float32]]) -> Parity:
    expected, actual = [], []
    for batch in batches:
        expected.append(source.run(np.ascontiguousarray(batch.transpose(0, 2, 3, 1))))
        actual.append(session.run({session.inputs[0]: batch})[0])
    return compare_outputs([np.concatenate(expected)], [np.concatenate(actual)])


def first_difference(source: Source, model: onnx.ModelProto, pictures: npt.NDArray[np.float32]) -> str | None:
    """Name of the first layer of ``source`` from which on nothing agrees with ``model``; None when all agree.

    A layer that a pass has folded away has no counterpart, but a layer behind it has.

    Args:
        pictures: (n, 3, h, w) float32, as the network takes them.
    """
    least = _AGREES if source.exact else INT8_COSINE
    watched = copy_model(model)
    outputs = {output.name for output in watched.graph.output}
    names = [name for node in watched.graph.node for name in node.output if name not in outputs]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = quiet_session(watched)
    values = [value.ravel() for value in session.run(None, {session.get_inputs()[0].name: pictures})]
    layers = list(source.layers(np.ascontiguousarray(pictures.transpose(0, 2, 3, 1))))
    agreeing: set[str] = set()
    for layer in reversed(layers):
        output = layer.output.transpose(0, 3, 1, 2) if layer.output.ndim == 4 else layer.output
        flat = output.ravel()
        if layer.name in agreeing or any(len(v) == len(flat) and _cosine(v, flat) >= least for v in values):
            agreeing.update((layer.name, *layer.inputs))
    return next((layer.name for layer in layers if layer.name not in agreeing), None)


def _cosine(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else float(np.array_equal(a, b))


def _problem(parity: Parity, exact: bool) -> bool:
    if not exact:
        return not parity.cosine_min >= INT8_COSINE
    return not (parity.cosine_min >= MIN_COSINE and parity.max_abs_diff <= MAX_DIFFERENCE * parity.max_abs_value)


def _require(parity: Parity, exact: bool, pictures: str, layer: str | None) -> None:
    if _problem(parity, exact):
        where = f" They part at the layer {layer}." if layer else ""
        raise ParityError(
            f"The ONNX network differs from its source on {pictures} pictures: cosine {parity.cosine_min:.7f}, largest "
            f"difference {parity.max_abs_diff:.3g} of {parity.max_abs_value:.3g}.{where} Nothing was written."
        )


def _prefixed(part: str, parity: Parity) -> dict[str, float]:
    return {f"{part}_{name}": value for name, value in parity.figures().items()}


def as_json(done: Exported) -> dict[str, Any]:
    """For ``--json``."""
    return {"path": str(done.path), "sha256": done.sha256, "figures": done.figures, "card": asdict(done.card)}
