"""Whether a network in another precision still tells people apart, alone and against galleries of the fp32 one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convert.errors import FacesError
from convert.portraits import Portrait, Say, faces_in, some_people
from convert.progress import Step
from convert.views import views
from runtime.detectors import Detector
from runtime.faces import FloatArray
from runtime.pairs import NamedPicture, list_pictures, read_pairs
from runtime.verification import Distances, Flags, best_threshold, point_at_far

MOST_PICTURES = 2000
"""Of a folder without a pairs file; these give two million pairs."""
LEAST_GENUINE, LEAST_PAIRS = 30, 500
"""With fewer than 500 pairs one pair weighs more than the 0.2 points of accuracy that are at stake."""
VIEWS = 6
LEAST_TAR = 0.5
"""A network that recognises fewer shows nothing by losing nothing."""
FAR = 1e-3
ACCURACY_LOSS, TAR_LOSS = 0.002, 0.005
"""Largest losses that are admitted: 0.2 and 0.5 points."""

Indices = npt.NDArray[np.intp]
_BLOCK = 1 << 15


@dataclass(frozen=True, slots=True, eq=False)
class Identities:
    """Pictures of faces, and which of them to compare.

    Attributes:
        portraits: the faces.
        left, right: (n,) intp, the faces of each pair.
        same: (n,) bool, whether a pair shows one person.
        about: what they are, for people.
        are_people: False when one face's "pictures" are views made of one picture.
    """

    portraits: tuple[Portrait, ...]
    left: Indices
    right: Indices
    same: Flags
    about: str
    are_people: bool

    @property
    def genuine(self) -> int:
        """Pairs of one person."""
        return int(self.same.sum())

    @property
    def impostors(self) -> int:
        """Pairs of two people."""
        return len(self.same) - self.genuine

    @property
    def suffice(self) -> bool:
        """Whether they can show what an old gallery is at stake for."""
        return self.are_people and self.genuine >= LEAST_GENUINE and len(self.same) >= LEAST_PAIRS

    @property
    def far(self) -> float:
        """The false accept rate to look at: 1e-3, or the lowest that so few pairs of two people can show."""
        return max(FAR, 1 / self.impostors)


@dataclass(frozen=True, slots=True)
class Verification:
    """How well pairs are told apart.

    Attributes:
        accuracy: share of pairs decided rightly at the best threshold.
        threshold: that threshold.
        tar: share of genuine pairs accepted at the false accept rate that was asked for.
    """

    accuracy: float
    threshold: float
    tar: float


@dataclass(frozen=True, slots=True)
class Gate:
    """A figure that must not be under its limit."""

    name: str
    figure: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the figure is there; not a number never is."""
        return self.figure >= self.limit - 1e-9

    def __str__(self) -> str:
        return f"{self.name}: {self.figure:.4f}, {self.limit:.4f} is needed"


def of_folder(portraits: Sequence[Portrait], name: str) -> Identities | None:
    """All pairs of the named ones among ``portraits``; None unless they show two people and one of them twice."""
    chosen = tuple(portrait for portrait in portraits if portrait.person)
    people = np.array([portrait.person for portrait in chosen])
    if len(set(people)) < 2 or len(set(people)) == len(people):
        return None
    left, right = np.triu_indices(len(chosen), 1)
    return _identities(chosen, left, right, f"{name}, {len(set(people))} people", are_people=True)


def of_views(portraits: Sequence[Portrait], seed: int = 1) -> Identities:
    """Views of each face as if they were pictures of one person, for want of such pictures.

    Raises:
        FacesError: there are fewer than two faces.
    """
    if len(portraits) < 2:
        raise FacesError(f"{len(portraits)} faces are too few; at least two are needed. Name a folder with more.")
    count = len(portraits) * VIEWS
    people = np.arange(count) % len(portraits)
    left, right = np.triu_indices(count, 1)
    seen = tuple(views(portraits, count, seed))
    same = people[left] == people[right]
    about = f"{VIEWS} views made of each of {len(portraits)} pictures, no two pictures of one person"
    return Identities(seen, left, right, same, _counted(about, same), are_people=False)


def of_pictures(folder: Path, pairs: Path | None, detector: Detector, say: Say, step: Step) -> Identities:
    """The faces of ``folder``, compared as ``pairs`` says, or each with each.

    Args:
        folder: ``Name/picture`` or ``Name_0001.jpg``.
        pairs: file in the format of LFW, whose pictures are named ``Name_0001``.
        detector: finds the faces; the largest of each picture counts.
        say: told what is left out.
        step: told how many pictures of how many are read.

    Raises:
        FacesError: there are no faces, or no pairs of one person and of two.
        PairsError: the folder or the file cannot be read.
    """
    pictures = list_pictures(folder)
    if pairs is None:
        kept = some_people([picture.person for picture in pictures], MOST_PICTURES)
        portraits = _read([pictures[index] for index in kept], folder, detector, say, step)
        found = of_folder(portraits, folder.name)
        if found is None:
            raise FacesError(f"{folder} needs faces of at least two people, and two pictures of one of them.")
        return found
    asked = read_pairs(pairs)
    wanted = {name for pair in asked for name in (pair.left, pair.right)}
    named = [picture for picture in pictures if picture.name in wanted]
    faces = tuple(_read(named, folder, detector, say, step))
    by_source = {portrait.source: index for index, portrait in enumerate(faces)}
    places = {
        picture.name: by_source[str(picture.path.relative_to(folder))]
        for picture in named
        if str(picture.path.relative_to(folder)) in by_source
    }
    usable = [pair for pair in asked if pair.left in places and pair.right in places]
    if len(usable) < len(asked):
        say(f"left out {len(asked) - len(usable)} of {len(asked)} pairs: a picture is missing or shows no face")
    if len({pair.same for pair in usable}) < 2:
        raise FacesError(f"{folder} holds too few of the pictures that {pairs} names: pairs of both kinds are needed.")
    left = np.array([places[pair.left] for pair in usable])
    right = np.array([places[pair.right] for pair in usable])
    return _identities(faces, left, right, f"{folder.name}, {pairs.name}", are_people=True)


def verify(identities: Identities, probes: FloatArray, gallery: FloatArray) -> Verification:
    """Figures of all pairs; each in both directions when probes and gallery are of two networks.

    Args:
        identities: n faces and their pairs.
        probes: (n, d) float32, rows of length 1.
        gallery: the same; may be ``probes``.
    """
    distances = _distances(probes, gallery, identities.left, identities.right)
    same = identities.same
    if gallery is not probes:
        distances = np.concatenate([distances, _distances(probes, gallery, identities.right, identities.left)])
        same = np.concatenate([same, same])
    threshold, accuracy = best_threshold(distances, same)
    point = point_at_far(distances[same], distances[~same], identities.far)
    return Verification(accuracy, threshold, point.tar)


def gates(fp32: Verification, other: Verification, cross: Verification, precision: str, far: float) -> list[Gate]:
    """What must hold for a network of another precision, by itself and as a probe against the fp32 gallery."""
    found = []
    for name, figures in ((f"{precision} against {precision}", other), (f"{precision} against an fp32 gallery", cross)):
        found.append(Gate(f"accuracy, {name}", figures.accuracy, fp32.accuracy - ACCURACY_LOSS))
        found.append(Gate(f"TAR at FAR {far:.2g}, {name}", figures.tar, fp32.tar - TAR_LOSS))
    return found


def _read(pictures: Sequence[NamedPicture], folder: Path, detector: Detector, say: Say, step: Step) -> list[Portrait]:
    portraits = []
    for done, picture in enumerate(pictures, start=1):
        portraits += faces_in(picture.path, detector, picture.person, str(picture.path.relative_to(folder)), say)
        step(done, len(pictures))
    return portraits


def _identities(
    portraits: tuple[Portrait, ...], left: Indices, right: Indices, about: str, *, are_people: bool
) -> Identities:
    people = np.array([portrait.person for portrait in portraits])
    same = people[left] == people[right]
    return Identities(portraits, left, right, same, _counted(f"{len(portraits)} pictures of {about}", same), are_people)


def _counted(about: str, same: Flags) -> str:
    genuine = int(same.sum())
    return f"{about}: {genuine} pairs of one person, {len(same) - genuine} of two"


def _distances(probes: FloatArray, gallery: FloatArray, left: Indices, right: Indices) -> Distances:
    distances = np.empty(len(left))
    for start in range(0, len(left), _BLOCK):
        part = slice(start, start + _BLOCK)
        distances[part] = 1 - np.einsum("ij,ij->i", probes[left[part]], gallery[right[part]], dtype=np.float64)
    return distances
