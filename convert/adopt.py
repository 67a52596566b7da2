"""``python -m convert adopt``: somebody's ONNX file, checked and given a card."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from convert.errors import ConvertError, FacesError
from convert.parity import DETECTOR_SIDE, SourceNetwork
from convert.portraits import Portrait, crops
from convert.repair import make_model
from convert.write import write_model
from models.card import ModelCard, load_card
from models.errors import CardError, PresetError
from models.presets import Changes, Origin, Preset, fed_as, make_card
from models.verify import fit_problems, signature
from runtime.detectors import open_detector
from runtime.embed import Embedder
from runtime.faces import Detections
from runtime.session import SharedSession, as_batch

Say = Callable[[str], None]
PICTURES = 8
"""How many pictures a detector is tried on."""

NUDGE = 0.03
"""How far landmarks move for a second crop of a face, in parts of the distance between the eyes and the mouth."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """An adopted model.

    Attributes:
        path: the file written.
        sha256: of the file.
        card: its card.
        checks: what was seen when it ran, one sentence each.
    """

    path: Path
    sha256: str
    card: ModelCard
    checks: tuple[str, ...]


def adopt(
    source: Path,
    preset: Preset,
    output: Path,
    portraits: Callable[[], Sequence[Portrait]],
    *,
    changes: Changes,
    say: Say = lambda _text: None,
) -> Adopted:
    """Write a copy of ``source`` with a card, after checking that it is what the preset says.

    The graph is repaired and compared with its source as a fetched model is, then run once through the runtime; an
    embedder must put two crops of one face nearer to each other than to any other face.

    Args:
        source: an ONNX file.
        preset: what it is said to be.
        output: where to; nothing is written there unless every check holds.
        portraits: faces to run it on, asked for once the graph fits.
        changes: what the card should say instead of the preset.
        say: told each step.

    Raises:
        ConvertError: a check fails or the file cannot be written.
        ModelError: the runtime cannot open the repaired file.
    """
    data = read_source(source)
    if output.exists() and output.samefile(source):
        raise ConvertError(f"{output} is the file to adopt. Name another with --output, so that the original stays.")
    origin = Origin(source.name, hashlib.sha256(data).hexdigest())
    say(f"{source.name}: checking against the preset {preset.name}")
    model = _load(data, source)
    inputs, outputs = SourceNetwork(data).signature()
    preset = fed_as(preset, model.graph)
    card = make_card(preset, changes, output.stem, (inputs, outputs), origin)
    say(f"{source.name}: repairing and comparing with the source")
    made = make_model(data, card, {})
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / output.name
        trial.write_bytes(made)
        checks = check_model(trial, portraits)
        card = load_card(trial)
    return Adopted(output, write_model(output, made), card, checks)


def check_model(path: Path, portraits: Callable[[], Sequence[Portrait]]) -> tuple[str, ...]:
    """Run a model with a card once, as the runtime will; what was seen, one sentence each.

    Raises:
        ConvertError: it does not fit its card, does not run, or does not tell faces apart.
    """
    session = SharedSession(path)
    problems = fit_problems(session.card, *signature(path))
    if problems:
        raise PresetError(f"{path.name} does not fit its card: {' '.join(problems)}")
    if session.card.task == "embedding":
        return (tell_apart(Embedder(session), portraits()),)
    return (detect_once(session, portraits),)


def tell_apart(embedder: Embedder, portraits: Sequence[Portrait]) -> str:
    """Whether two crops of one face lie nearer than two faces; the figures in a sentence.

    The second crop is cut with the landmarks a little off, as another detector would give them.

    Raises:
        FacesError: there are fewer than two faces.
        PresetError: a face lies nearer to another face than to itself.
    """
    if len(portraits) < 2:
        raise FacesError(
            "At least two faces are needed to see whether the network tells faces apart. "
            "Name a folder of pictures with --images DIR, or `pip install --no-deps insightface`, which ships some."
        )
    one = embedder.embed(crops(embedder, portraits))
    other = embedder.embed(crops(embedder, [replace(p, face=nudged(p.face)) for p in portraits]))
    distances = 1 - one @ other.T
    own = np.diagonal(distances)
    foreign = distances + np.where(np.eye(len(one), dtype=bool), np.inf, 0)
    # Unnamed portraits are all of different people; of a named person there may be several.
    people = np.array([portrait.person or f"?{index}" for index, portrait in enumerate(portraits)])
    foreign = np.where(people[:, None] == people[None], np.inf, foreign)
    if not np.isfinite(distances).all():
        raise PresetError("The network gives numbers that are not finite for aligned faces. Check mean and scale.")
    if not np.isfinite(foreign).any():
        raise FacesError("All pictures show one person. Name a folder with at least two people with --images DIR.")
    failed = int((own >= foreign.min(axis=1)).sum())
    figures = (
        f"two crops of one face at most {own.max():.3f} apart, two people at least {foreign.min():.3f} "
        f"({len(one)} faces)"
    )
    if failed:
        raise PresetError(
            f"The network does not tell faces apart: {figures}; {failed} faces lie nearer to somebody else than to "
            "themselves. Check preset, colour order, mean and scale."
        )
    return figures


def nudged(face: Detections) -> Detections:
    """The same faces with box and landmarks moved by a few hundredths of the face's size."""
    size = np.linalg.norm(face.landmarks[:, 0] - face.landmarks[:, 4], axis=1)[:, None, None]
    pattern = np.array([[1, -1], [-1, 1], [1, 1], [-1, -1], [1, 0]], np.float32)
    moved = face.landmarks + pattern * size * NUDGE
    boxes = face.boxes + np.array([1, -1, 1, 1], np.float32) * size[:, 0] * NUDGE
    return Detections(boxes.astype(np.float32), moved.astype(np.float32), face.scores)


def read_source(path: Path) -> bytes:
    """The bytes of a file that a user named.

    Raises:
        ConvertError: it is not there or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ConvertError(f"{path} does not exist. Check the path.") from error
    except OSError as error:
        raise ConvertError(f"{path} cannot be read: {error.strerror}.") from error


def _load(data: bytes, path: Path) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(data)
    except Exception as error:
        raise ConvertError(
            f"{path} is no ONNX file. Weights of Keras, TensorFlow or TensorFlow Lite are made into one with "
            f"`python -m convert export --weights {path} --output OUT.onnx`."
        ) from error


def detect_once(session: SharedSession, portraits: Callable[[], Sequence[Portrait]]) -> str:
    """What a detector finds in a few pictures of faces, in a sentence.

    Raises:
        FacesError: there are no pictures.
        PresetError: it finds no face in them.
    """
    try:
        detector = open_detector(session)
    except CardError:
        # A family that this version of the runtime does not decode can still be run.
        width, height = (side or DETECTOR_SIDE for side in session.card.input_size)
        blank = np.zeros((1, height, width, 3), np.uint8)
        session.run({session.inputs[0]: as_batch(blank, session.card)})
        return f"it runs on {width} x {height} pixels"
    pictures = {portrait.source: portrait.image for portrait in portraits()}
    if not pictures:
        raise FacesError("A picture of a face is needed to try the detector on. Name a folder with --images DIR.")
    some = list(pictures.values())[:PICTURES]
    try:
        found = sum(len(detector.detect(image)) for image in some)
    except Exception as error:
        # Its outputs are as many as the preset says, but of other shapes: whatever reads them may fail anyhow.
        raise PresetError(
            f"What the network gives cannot be read as {session.card.family}: {str(error).splitlines()[0][:200]}. "
            "Check the preset."
        ) from error
    if not found:
        raise PresetError(f"The detector finds no face in {len(some)} pictures of faces. Check the preset.")
    return f"it finds {found} faces in {len(some)} pictures"
