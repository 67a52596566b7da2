"""Do both stores say the same about a folder of pictures, and is it right?

The pictures are searched in this process (:mod:`matchers.validation_local`) or by a server
(:mod:`matchers.validation_remote`); here is what both hand over and what it amounts to.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matchers.base import Box, Match
from matchers.compare import Comparison
from matchers.errors import MatcherError
from matchers.folder import SUFFIXES
from matchers.gates import GateResult, Gates, check
from matchers.reasons import Reason, Whereabouts, disagree, named, reason, suspects
from matchers.summary import FaceFigures, RequestFigures, Summary, summarize


class ValidationError(MatcherError):
    """The validation cannot be done."""


@dataclass(frozen=True, slots=True)
class Image:
    """A picture to search.

    Attributes:
        source: path relative to the folder, ``/`` between parts, Unicode NFC.
        person: the folder it lies in, Unicode NFC; None for a picture that lies in no person's folder.
    """

    source: str
    path: Path
    person: str | None


@dataclass(frozen=True, slots=True)
class FaceAnswer:
    """One face, as both stores answered.

    Attributes:
        box: x, y, width, height in pixels of the picture.
        pkl, pgvector: nearest first.
        own: sources of enrolled faces that come from this very picture.
    """

    box: Box
    pkl: Sequence[Match]
    pgvector: Sequence[Match]
    comparison: Comparison
    own: frozenset[str]


@dataclass(frozen=True, slots=True)
class PictureAnswer:
    """One picture, searched.

    Attributes:
        faces: empty when pgvector failed.
        failed: pgvector did not answer.
        compared: both stores were asked.
        pkl_ms, pgvector_ms: how long the two searches of the comparison took; None without an answer.
        times: milliseconds by way of searching, for the plot.
        problem: why the picture could not be searched, "" when it was.
    """

    image: Image
    faces: Sequence[FaceAnswer] = ()
    failed: bool = False
    compared: bool = False
    pkl_ms: float | None = None
    pgvector_ms: float | None = None
    times: Mapping[str, float] | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Names:
    """How often one store named the person of a picture's folder. Only pictures with one face count.

    Attributes:
        right: named as the folder says.
        wrong: named as somebody else.
        unnamed: not named; the nearest face is over the threshold, or there is none.
    """

    right: int
    wrong: int
    unnamed: int

    @property
    def judged(self) -> int:
        """Pictures that count."""
        return self.right + self.wrong + self.unnamed


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A face about which the stores do not say the same.

    Attributes:
        reason: why; see :data:`matchers.reasons.REASONS`.
    """

    source: str
    path: Path
    box: Box
    reason: Reason
    pkl: Sequence[Match]
    pgvector: Sequence[Match]


@dataclass(frozen=True, slots=True)
class SizePoint:
    """Agreement in a gallery of ``size`` faces.

    Attributes:
        top1_rate: share of searches with the same person first.
        top5_overlap: mean share of the first five results in common.
        max_distance_delta: largest difference between the two distances of one result.
        pkl_ms, pgvector_ms: median time of a search; None where it was not measured alone.
    """

    size: int
    top1_rate: float
    top5_overlap: float
    max_distance_delta: float
    pkl_ms: float | None
    pgvector_ms: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """Everything that was found.

    Attributes:
        domain: what was searched.
        where: "in this process", or the server's address.
        models: detector and embedder; "" when a server did not say.
        threshold: cosine distance up to which two faces count as one person.
        pictures, faces: searched.
        without_face: pictures in which no face was found.
        one_sided: pictures that the server searched in one store only.
        problems: by source, why a picture was not searched.
        gates: each gate with its figure.
        differences: pictures that the stores do not hold alike; None when not known.
        names: by store; None when no picture lies in a person's folder.
        left_out: enrolled faces that come from the pictures themselves and were left out of ``names``; None when
            they were not left out.
        disagreements: every one.
        times: milliseconds by way of searching.
        distances: (n, 2) float64, of every match that both stores found, in PKL and in pgvector.
        deltas: (n,) float64, largest difference between the two distances of one result, face by face.
        sizes: agreement over the size of the gallery; empty when it was not measured.
        sizes_note: what was done for it, or why not.
    """

    domain: str
    where: str
    models: str
    threshold: float
    pictures: int
    faces: int
    without_face: int
    one_sided: int
    problems: Mapping[str, str]
    summary: Summary
    gates: Sequence[GateResult]
    differences: int | None
    names: Mapping[str, Names] | None
    left_out: int | None
    disagreements: Sequence[Disagreement]
    times: Mapping[str, Sequence[float]]
    distances: np.ndarray[tuple[int, int], np.dtype[np.float64]]
    deltas: np.ndarray[tuple[int], np.dtype[np.float64]]
    sizes: Sequence[SizePoint]
    sizes_note: str

    @property
    def holds(self) -> bool:
        """Whether every gate holds."""
        return all(gate.holds for gate in self.gates)


@dataclass(frozen=True, slots=True)
class Context:
    """What is known besides the answers.

    Attributes:
        domain, where, models, threshold, differences: see :class:`Validation`.
        in_pkl, in_pgvector: sources that each store holds; None when that is not known.
        indexed: pgvector searches through an approximate index.
        leave_one_out: leave enrolled faces that come from the picture itself out of the names.
        sizes, sizes_note: see :class:`Validation`.
    """

    domain: str
    where: str
    models: str
    threshold: float
    differences: int | None
    in_pkl: Container[str] | None
    in_pgvector: Container[str] | None
    indexed: bool
    leave_one_out: bool
    sizes: Sequence[SizePoint] = ()
    sizes_note: str = ""


def list_images(root: Path, limit: int | None = None) -> list[Image]:
    """Pictures under ``root``, in persons' folders or flat, sorted by source; hidden files are passed over.

    Args:
        limit: at most so many, the same ones every time, spread over the folder.

    Raises:
        ValidationError: ``root`` is no folder or holds no picture.
    """
    if not root.is_dir():
        raise ValidationError(f"{root} is not a folder. Name the folder that holds the pictures.")
    images = []
    for path in [*root.glob("*"), *root.glob("*/*")]:
        parts = path.relative_to(root).parts
        if any(part.startswith(".") for part in parts) or path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        names = [unicodedata.normalize("NFC", part) for part in parts]
        images.append(Image("/".join(names), path, names[0] if len(names) > 1 else None))
    if not images:
        raise ValidationError(f"{root} holds no picture: neither {root / 'amy' / '1.jpg'} nor {root / '1.jpg'}.")
    images.sort(key=lambda image: image.source)
    if limit is None or limit >= len(images):
        return images
    return [images[index * len(images) // limit] for index in range(limit)]


def assess(answers: Sequence[PictureAnswer], context: Context, gates: Gates) -> Validation:
    """What the answers amount to."""
    compared = [answer for answer in answers if answer.compared]
    faces = [(answer, face) for answer in compared for face in answer.faces]
    figures, disagreements = [], []
    for answer, face in faces:
        why = _reason(face, context)
        figures.append(FaceFigures(face.comparison, why is not None, why))
        if why is not None:
            image = answer.image
            disagreements.append(Disagreement(image.source, image.path, face.box, why, face.pkl, face.pgvector))
    searched = [answer for answer in compared if answer.faces or answer.failed]
    requests = [RequestFigures(answer.pkl_ms, answer.pgvector_ms, answer.failed) for answer in searched]
    summary = summarize(requests, figures)
    judged = [(answer.image.person, answer.faces[0]) for answer in compared if len(answer.faces) == 1]
    distances = [pair for _, face in faces for pair in _paired(face)]
    return Validation(
        domain=context.domain,
        where=context.where,
        models=context.models,
        threshold=context.threshold,
        pictures=sum(not answer.problem for answer in answers),
        faces=len(faces),
        without_face=sum(not (answer.faces or answer.problem or answer.failed) for answer in compared),
        one_sided=sum(not (answer.compared or answer.problem) for answer in answers),
        problems={answer.image.source: answer.problem for answer in answers if answer.problem},
        summary=summary,
        gates=check(gates, summary.figures(context.differences)),
        differences=context.differences,
        names=_names([(person, face) for person, face in judged if person is not None], context),
        left_out=sum(len(face.own) for _, face in faces) if context.leave_one_out else None,
        disagreements=disagreements,
        times=_times(answers),
        distances=np.array(distances, np.float64).reshape(-1, 2),
        deltas=np.array([face.comparison.max_distance_delta for _, face in faces], np.float64),
        sizes=context.sizes,
        sizes_note=context.sizes_note,
    )


def _reason(face: FaceAnswer, context: Context) -> Reason | None:
    if not disagree(face.pkl, face.pgvector, context.threshold):
        return None
    keys = suspects(face.pkl, face.pgvector)

    def held(sources: Container[str] | None) -> frozenset[tuple[str, str]]:
        # Where the inventory is not known, nothing is claimed to be missing.
        return frozenset(key for key in keys if sources is None or key[1] in sources)

    whereabouts = Whereabouts(held(context.in_pkl), held(context.in_pgvector), context.indexed)
    return reason(face.pkl, face.pgvector, context.threshold, whereabouts)


def _names(judged: Iterable[tuple[str, FaceAnswer]], context: Context) -> Mapping[str, Names] | None:
    counts: dict[str, Counter[str]] = {"pkl": Counter(), "pgvector": Counter()}
    for person, face in judged:
        own = face.own if context.leave_one_out else frozenset()
        for store, matches in (("pkl", face.pkl), ("pgvector", face.pgvector)):
            name = named([match for match in matches if match.source not in own], context.threshold)
            counts[store]["unnamed" if name is None else "right" if name == person else "wrong"] += 1
    if not counts["pkl"]:
        return None
    return {store: Names(count["right"], count["wrong"], count["unnamed"]) for store, count in counts.items()}


def _paired(face: FaceAnswer) -> list[tuple[float, float]]:
    """Distances in PKL and in pgvector of the matches that stand once in both lists."""
    pkl, pgvector = (_single(matches) for matches in (face.pkl, face.pgvector))
    return [(distance, pgvector[key]) for key, distance in pkl.items() if key in pgvector]


def _single(matches: Sequence[Match]) -> dict[tuple[str, str], float]:
    counts = Counter((match.person, match.source) for match in matches)
    return {
        (match.person, match.source): match.distance for match in matches if counts[match.person, match.source] == 1
    }


def _times(answers: Iterable[PictureAnswer]) -> Mapping[str, Sequence[float]]:
    times: dict[str, list[float]] = {}
    for answer in answers:
        for name, milliseconds in (answer.times or {}).items():
            times.setdefault(name, []).append(milliseconds)
    return times
