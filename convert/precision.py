"""A network with a card in another precision: made, compared with its fp32 source, and let through by gates."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from convert.errors import PrecisionError
from convert.halve import halve
from convert.identities import LEAST_TAR, Gate, Identities, Verification, gates, verify
from convert.integers import Choice, choose
from convert.parity import compare_outputs
from convert.portraits import Portrait, Say, crops
from convert.progress import Step
from convert.repair import with_card
from convert.samples import gather
from convert.speed import interleaved
from models.card import ModelCard
from runtime.embed import Embedder
from runtime.faces import FloatArray
from runtime.session import SharedSession, as_batch

MIN_MEAN_COSINE = 0.97
MIN_FP16_COSINE = 0.9999
CROPS = 64
BLOCK = 32
TOGETHER, TOGETHER_ROUNDS = 4, 15
"""Faces of one picture whose speed is measured, too, and how often."""
WORTH = 1.2
"""With less speed-up than this the command says that int8 does not pay."""


def _ignore(_done: int, _total: int) -> None:
    """For those who need no progress."""


Cosines = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PrecisionOptions:
    """How to change the precision.

    Attributes:
        models_dir: where the detector is that finds faces, or is fetched to.
        calibration: folder of pictures that int8 ranges are taken from; None: faces that packages ship.
        images: folder of people to judge by; None: the people of ``calibration``, or views of faces.
        pairs: file in the format of LFW, which of ``images`` to compare; None: all pairs.
        crops: of faces, how many to calibrate on.
        force: also give a network that does not pass the gates.
        source_sha256: of the fp32 file; "" when there is none.
        say: told each step in words.
        count: gives what is told how far a long step is.
    """

    models_dir: Path
    calibration: Path | None = None
    images: Path | None = None
    pairs: Path | None = None
    crops: int = CROPS
    force: bool = False
    source_sha256: str = ""
    say: Say = lambda _text: None
    count: Callable[[str], Step] = lambda _name: _ignore


@dataclass(frozen=True, slots=True, eq=False)
class Precise:
    """A network in another precision.

    Attributes:
        model: the network, without card.
        card: its card.
        figures: what was measured, ready for JSON: ``precision``, ``candidates`` (int8: every way that was tried),
            ``gates`` (name, figure, limit, holds), ``measured`` (as in the card) and ``sentences`` for people.
    """

    model: onnx.ModelProto
    card: ModelCard
    figures: dict[str, Any]


def apply_precision(
    model: onnx.ModelProto, card: ModelCard, precision: Literal["int8", "fp16"], options: PrecisionOptions
) -> Precise:
    """The network in another precision, with its card.

    An fp16 network is the same for galleries. An int8 network is a space of its own: its card names the fp32 space as
    ``compatible_space``, and keeps the name by which galleries are found, only when enough pictures of people show that
    its embeddings do as well against fp32 ones as among themselves; otherwise the name gets ``-int8``.

    Args:
        model: an fp32 network, repaired.
        card: its card, finished.
        precision: ``int8`` or ``fp16``.
        options: how.

    Raises:
        PrecisionError: the card is no fp32 embedder's, the network cannot be changed, or it does not pass the gates.
        ConvertError: there are too few faces.
        ModelError: the runtime cannot open a network.
    """
    if card.task != "embedding":
        raise PrecisionError(f"{card.name} is a {card.task} network; --precision is for embedders.")
    if card.precision != "fp32" or any(node.op_type in _QUANTISED for node in model.graph.node):
        raise PrecisionError(f"{card.name} is no fp32 network any more. Name the fp32 file that it was made of.")
    with tempfile.TemporaryDirectory() as folder:
        work = _Work(Path(folder), model, card, options)
        return work.int8() if precision == "int8" else work.fp16()


_QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"})


class _Work:
    """One network on its way to another precision."""

    def __init__(self, folder: Path, model: onnx.ModelProto, card: ModelCard, options: PrecisionOptions) -> None:
        self._folder = folder
        self._model = model
        self._card = card
        self._options = options
        self._say = options.say
        self._fp32 = self._open(model)

    def int8(self) -> Precise:
        options, card = self._options, self._card
        self._say(f"{card.name}: looking for faces")
        samples = gather(
            options.models_dir,
            options.calibration,
            options.images,
            options.pairs,
            count=options.crops,
            say=self._say,
            step=options.count("reading pictures"),
        )
        held_out = crops(self._fp32, samples.held_out)
        inputs = as_batch(crops(self._fp32, samples.calibration), card)
        self._say(f"{card.name}: calibrating on {samples.about}")
        step = options.count("calibrating")
        expected = self._fp32.embed(held_out)
        choice = choose(self._model, inputs, held_out, expected, open_model=self._open, say=self._say, step=step)
        self._say(f"chosen: {str(choice.chosen).strip()}")
        identities = samples.identities
        self._say(f"{card.name}: judging by {identities.about}")
        int8 = self._open(choice.model)
        ours, theirs = self._embeddings(int8, identities.portraits), self._embeddings(self._fp32, identities.portraits)
        checks, figures = _judge(identities, ours, theirs)
        for gate in checks:
            self._say(f"  {gate}")
        networks = (self._fp32, int8)
        alone = interleaved([partial(network.embed, held_out[:1]) for network in networks])
        together = interleaved([partial(network.embed, held_out[:TOGETHER]) for network in networks], TOGETHER_ROUNDS)
        measured: dict[str, float | str] = {
            "source_sha256": options.source_sha256 or card.origin_sha256,
            "calibration": samples.about,
            **_described(choice),
            **figures,
            **_speed(self._model, choice.model, alone, together),
        }
        failed = [gate for gate in checks if not gate.holds]
        measured["gates"] = f"failed, written with --force: {_names(failed)}" if failed else "passed"
        doubt = _doubt(identities, float(measured["tar_fp32"]))
        compatible = not failed and not doubt
        measured["cross_test"] = _cross_test(card, failed, doubt)
        changed = self._int8_card(choice.model, measured, compatible=compatible)
        report = {
            "precision": "int8",
            "candidates": [asdict(candidate) for candidate in choice.candidates],
            "gates": [asdict(gate) | {"holds": gate.holds} for gate in checks],
            "measured": measured,
            "sentences": [_verdict(measured), str(measured["cross_test"])],
        }
        if failed and not options.force:
            raise PrecisionError(
                f"int8 loses too much: {'; '.join(map(str, failed))}. Nothing was written. "
                "Calibrate on more faces with --calibration DIR, or write it all the same with --force.",
                report,
            )
        return Precise(choice.model, changed, report)

    def fp16(self) -> Precise:
        options, card = self._options, self._card
        self._say(f"{card.name}: looking for faces")
        samples = gather(
            options.models_dir, options.calibration, None, None, count=options.crops, say=self._say, step=_ignore
        )
        halved = halve(self._model)
        faces = crops(self._fp32, (*samples.calibration, *samples.held_out))
        parity = compare_outputs([self._fp32.embed(faces)], [self._open(halved).embed(faces)])
        gate = Gate("least cosine to fp32", parity.cosine_min, MIN_FP16_COSINE)
        self._say(f"  {gate}")
        measured: dict[str, float | str] = {
            "source_sha256": options.source_sha256 or card.origin_sha256,
            "gates": "passed" if gate.holds else f"failed, written with --force: {gate.name}",
            "bytes_fp32": float(self._model.ByteSize()),
            "bytes_fp16": float(halved.ByteSize()),
            "checked_on": f"CPU, onnxruntime {ort.__version__}, {len(faces)} crops of faces",
        }
        sentence = (
            f"fp16 is {halved.ByteSize() / 1e6:.1f} MB instead of {self._model.ByteSize() / 1e6:.1f}. It is for CUDA: "
            "a CPU turns it back into fp32 at every step. Galleries stay as they are."
        )
        report = {
            "precision": "fp16",
            "candidates": [],
            "gates": [asdict(gate) | {"holds": gate.holds}],
            "measured": measured,
            "sentences": [sentence],
        }
        if not gate.holds and not options.force:
            raise PrecisionError(
                f"fp16 loses too much: {gate}. Nothing was written. Values inside the network may be too large for "
                "fp16; stay with fp32, or write it all the same with --force.",
                report,
            )
        return Precise(halved, replace(card, precision="fp16", parity=parity.figures(), measured=measured), report)

    def _open(self, model: onnx.ModelProto) -> Embedder:
        path = self._folder / "network.onnx"
        path.write_bytes(with_card(model, self._card))
        embedder = Embedder(SharedSession(path))
        path.unlink()
        return embedder

    def _embeddings(self, embedder: Embedder, portraits: Sequence[Portrait]) -> FloatArray:
        """Embeddings of any number of faces, whose crops need not all be in memory."""
        block, step = BLOCK, self._options.count("embedding faces")
        parts = []
        for start in range(0, len(portraits), block):
            parts.append(embedder.embed(crops(embedder, portraits[start : start + block])))
            step(min(start + block, len(portraits)), len(portraits))
        return np.concatenate(parts)

    def _int8_card(self, model: onnx.ModelProto, measured: Mapping[str, float | str], *, compatible: bool) -> ModelCard:
        card = self._card
        digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()[:12]
        return replace(
            card,
            name=card.name if compatible else f"{card.name}-int8",
            space=f"{card.space}-int8-{digest}",
            compatible_space=card.gallery_space if compatible else "",
            precision="int8",
            parity={key: float(measured[key]) for key in ("cosine_mean", "cosine_min")},
            measured=measured,
        )


def _judge(identities: Identities, ours: FloatArray, theirs: FloatArray) -> tuple[list[Gate], dict[str, float | str]]:
    """The gates, and their figures for the card. ``ours`` are the int8 embeddings, ``theirs`` the fp32 ones."""
    cosines: Cosines = (ours * theirs).sum(axis=1)
    fp32 = verify(identities, theirs, theirs)
    int8 = verify(identities, ours, ours)
    cross = verify(identities, ours, theirs)
    found = [Gate("mean cosine to fp32", float(cosines.mean()), MIN_MEAN_COSINE)]
    found += gates(fp32, int8, cross, "int8", identities.far)
    figures: dict[str, float | str] = {
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
        "identities": identities.about,
        "far": identities.far,
    }
    named: tuple[tuple[str, Verification], ...] = (("fp32", fp32), ("int8", int8), ("cross", cross))
    for name, one in named:
        figures |= {f"accuracy_{name}": one.accuracy, f"threshold_{name}": one.threshold, f"tar_{name}": one.tar}
    return found, figures


def _described(choice: Choice) -> dict[str, float | str]:
    chosen = choice.chosen
    return {
        "ranges": chosen.ranges,
        "in_float": ", ".join(chosen.in_float) or "no layer",
        "onnxruntime": ort.__version__,
    }


def _speed(
    fp32: onnx.ModelProto, int8: onnx.ModelProto, alone: Sequence[float], together: Sequence[float]
) -> dict[str, float | str]:
    """Milliseconds of fp32 and of int8, for one face and for several, as the card says it."""
    return {
        "milliseconds_fp32": alone[0],
        "milliseconds_int8": alone[1],
        "speed_up": alone[0] / alone[1],
        "speed_up_together": together[0] / together[1],
        "bytes_fp32": float(fp32.ByteSize()),
        "bytes_int8": float(int8.ByteSize()),
    }


def _verdict(measured: Mapping[str, float | str]) -> str:
    before, after = float(measured["milliseconds_fp32"]), float(measured["milliseconds_int8"])
    sizes = f"{float(measured['bytes_int8']) / 1e6:.1f} MB instead of {float(measured['bytes_fp32']) / 1e6:.1f}"
    times = f"{after:.1f} ms a face instead of {before:.1f}"
    together = float(measured["speed_up_together"])
    several = f"{together:.1f} times as fast for {TOGETHER} faces of one picture"
    if max(before / after, together) < WORTH:
        return (
            f"int8 does not pay for this network on this machine: {times}, {several}. "
            f"Stay with fp32, unless size counts: {sizes}."
        )
    return f"int8 is {before / after:.1f} times as fast on this machine: {times}, {several}; {sizes}."


def _doubt(identities: Identities, tar: float) -> str:
    """Why the pictures cannot show whether int8 probes may search fp32 galleries; "" when they can."""
    if not identities.are_people:
        return "there were no pictures of people to try it on"
    if not identities.suffice:
        return f"only {identities.genuine} pairs of one person and {identities.impostors} of two were compared"
    if tar < LEAST_TAR:
        return f"the fp32 network itself recognised only {tar:.0%} of the pairs of one person"
    return ""


def _cross_test(card: ModelCard, failed: Sequence[Gate], doubt: str) -> str:
    own = f"The embeddings are another space than {card.space}"
    if failed:
        return f"{own}, and the gates failed: galleries of {card.name} are not searched; sync them anew."
    if not doubt:
        return f"{own}, but int8 probes did as well against fp32 galleries: those of {card.name} are used as they are."
    return (
        f"{own}, and whether int8 probes may search fp32 galleries is not known, since {doubt}: galleries of "
        f"{card.name} are not searched; sync them anew, or let it be tried with --images DIR."
    )


def _names(failed: Sequence[Gate]) -> str:
    return ", ".join(gate.name for gate in failed)
