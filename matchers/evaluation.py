"""How well the models tell people apart, on pictures of which it is known who they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matchers.errors import MatcherError
from matchers.recommendation import Recommendation, recommend
from runtime.engine import FaceEngine
from runtime.faces import FloatArray
from runtime.identification import Searches, search, split, supports
from runtime.pairs import NamedPicture, Pair, PictureName, list_pictures, read_pairs
from runtime.subject import Subject, read_subjects
from runtime.verification import (
    Distances,
    Flags,
    FoldAccuracy,
    Integers,
    Point,
    area_under,
    equal_error_rate,
    fold_accuracy,
    point_at,
    point_at_far,
    roc,
)

FARS = (1e-2, 1e-3)
FPIR = 1e-2
REPEATS = 10
Progress = Callable[[int, int], None]


class EvaluationError(MatcherError):
    """The pictures or the pairs do not allow what was asked."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What became of the picture files.

    Attributes:
        read: picture files looked at.
        people: how many people they show.
        used: pictures with a face that was embedded.
        several: pictures with several faces, of which the most central one was taken.
        bordered: pictures in which a face was found only after a black border was laid around them.
        problems: pictures without a usable face, by path relative to the folder: why.
        missing: pictures that the pairs name and the folder does not hold.
        seconds: how long reading and embedding took.
    """

    read: int
    people: int
    used: int
    several: int
    bordered: int
    problems: Mapping[str, str]
    missing: tuple[str, ...]
    seconds: float

    @property
    def per_second(self) -> float:
        """Pictures read in a second."""
        return self.read / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Verification:
    """One picture against one other.

    Attributes:
        genuine, impostor: pairs compared, of one person and of two.
        missing: pairs left out because a picture is not there.
        failed: pairs left out because a picture has no usable face.
        folds: accuracy by cross-validation.
        accuracy_all: mean accuracy over the folds when every pair in ``failed`` counts as decided wrongly.
        points: at the false accept rates in :data:`FARS`; None where the pairs are too few to show the rate.
        configured: at the threshold that the service uses.
        equal_error_rate: where false accepts and false rejects are equally many, 0 to 1.
        area: under the receiver operating characteristic, 0 to 1.
    """

    genuine: int
    impostor: int
    missing: int
    failed: int
    folds: FoldAccuracy
    accuracy_all: float
    points: Mapping[str, Point | None]
    configured: Point
    equal_error_rate: Point
    area: float


@dataclass(frozen=True, slots=True)
class Identification:
    """One picture against a gallery, over several random splits. Rates with mean and standard deviation.

    Attributes:
        splits: how many splits.
        enrolled, known, unknown: enrolled people, known and unknown probes of one split (means over the splits).
        rank1, rank5: share of known probes whose person is the nearest, or among the nearest five.
        fnir: false negative identification rate at an FPIR of :data:`FPIR`; None when a split has too few unknown
            probes to show it.
        threshold: the threshold that belongs to it.
        fnir_configured, fpir_configured: both rates at the threshold that the service uses.
    """

    splits: int
    enrolled: float
    known: float
    unknown: float
    rank1: tuple[float, float]
    rank5: tuple[float, float]
    fnir: tuple[float, float] | None
    threshold: tuple[float, float] | None
    fnir_configured: tuple[float, float]
    fpir_configured: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Everything that was measured.

    Attributes:
        threshold: the threshold that the service uses.
        genuine, impostor: (n,) float64, distances of the pairs; empty without pairs.
        searches: of the first split; None when no identification was asked for.
    """

    threshold: float
    pictures: Pictures
    verification: Verification | None
    identification: Identification | None
    recommendation: Recommendation | None
    genuine: Distances
    impostor: Distances
    searches: Searches | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        images: folder of ``Name/Name_0001.jpg`` or ``Name_0001.jpg``.
        pairs: LFW pairs file; None: no verification by folds.
        identification: measure galleries too.
        fmr: recommend a threshold for this false-match rate.
        seed: of the random splits.
    """

    images: Path
    pairs: Path | None
    identification: bool
    fmr: float | None
    seed: int = 0


def evaluate(
    engine: FaceEngine, plan: Plan, threshold: float, clock: Callable[[], float], on_progress: Progress | None = None
) -> Evaluation:
    """Read the pictures, then measure what ``plan`` asks for.

    With pairs and nothing else, only the pictures in the pairs are read.

    Args:
        threshold: cosine distance that the service uses.
        clock: seconds, to time the reading.

    Raises:
        PairsError: the folder or the pairs file cannot be used.
        EvaluationError: no pair can be compared, or there are too few people.
    """
    pairs = read_pairs(plan.pairs) if plan.pairs is not None else ()
    pictures = list_pictures(plan.images)
    if not plan.identification and plan.fmr is None:
        wanted = {name for pair in pairs for name in (pair.left, pair.right)}
        pictures = [picture for picture in pictures if picture.name in wanted]
    start = clock()
    subjects = read_subjects(engine, [picture.path for picture in pictures], on_progress)
    seconds = clock() - start
    used = [(picture, subject) for picture, subject in zip(pictures, subjects, strict=True) if not subject.problem]
    embeddings = np.array([subject.embedding for _, subject in used], np.float32).reshape(
        len(used), engine.embedder_card.dimension
    )
    labels = [picture.person for picture, _ in used]
    verification, genuine, impostor = None, np.empty(0), np.empty(0)
    if plan.pairs is not None:
        table = _Distances(pairs, pictures, used, embeddings)
        genuine, impostor = table.distances[table.same], table.distances[~table.same]
        verification = _verify(table, threshold)
    searches = _search_splits(embeddings, labels, plan.seed) if plan.identification else []
    return Evaluation(
        threshold=threshold,
        pictures=_account(plan.images, pairs, pictures, subjects, seconds),
        verification=verification,
        identification=_identify(searches, threshold) if searches else None,
        recommendation=recommend(embeddings, labels, plan.fmr) if plan.fmr is not None else None,
        genuine=genuine,
        impostor=impostor,
        searches=searches[0] if searches else None,
    )


class _Distances:
    """The pairs that can be compared."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        pictures: Sequence[NamedPicture],
        used: Sequence[tuple[NamedPicture, Subject]],
        embeddings: FloatArray,
    ) -> None:
        there = {picture.name for picture in pictures}
        rows: dict[PictureName | None, int] = {picture.name: row for row, (picture, _) in enumerate(used)}
        missing = [pair for pair in pairs if not {pair.left, pair.right} <= there]
        present = [pair for pair in pairs if {pair.left, pair.right} <= there]
        compared = [pair for pair in present if {pair.left, pair.right} <= rows.keys()]
        self.missing = len(missing)
        self.failed = Counter(pair.fold for pair in present if not {pair.left, pair.right} <= rows.keys())
        left = embeddings[[rows[pair.left] for pair in compared]]
        right = embeddings[[rows[pair.right] for pair in compared]]
        self.distances: Distances = 1 - (left.astype(np.float64) * right).sum(axis=1)
        self.same: Flags = np.array([pair.same for pair in compared], np.bool_)
        self.folds: Integers = np.array([pair.fold for pair in compared], np.int64)
        if not self.same.any() or self.same.all():
            raise EvaluationError(
                f"Of {len(pairs):,} pairs {len(compared):,} can be compared, {self.missing:,} name a picture that is "
                "not there. It takes at least one pair of one person and one of two people: check that --images holds "
                "the pictures that --pairs names, as Name/Name_0001.jpg or Name_0001.jpg."
            )


def _verify(table: _Distances, threshold: float) -> Verification:
    genuine, impostor = table.distances[table.same], table.distances[~table.same]
    folds = fold_accuracy(table.distances, table.same, table.folds)
    sizes = [np.count_nonzero(table.folds == fold) for fold in np.unique(table.folds)]
    right: list[float] = [
        accuracy * size / (size + table.failed[int(fold)])
        for accuracy, size, fold in zip(folds.accuracies, sizes, np.unique(table.folds), strict=True)
    ]
    # Of a fold in which every pair failed nothing is right.
    right += [0.0] * len(table.failed.keys() - {int(fold) for fold in table.folds})
    curve = roc(genuine, impostor)
    return Verification(
        genuine=len(genuine),
        impostor=len(impostor),
        missing=table.missing,
        failed=table.failed.total(),
        folds=folds,
        accuracy_all=float(np.mean(right)),
        points={
            f"{far:g}": point_at_far(genuine, impostor, far) if supports(len(impostor), far) else None for far in FARS
        },
        configured=point_at(genuine, impostor, threshold),
        equal_error_rate=equal_error_rate(curve),
        area=area_under(curve),
    )


def _search_splits(embeddings: FloatArray, labels: Sequence[str], seed: int) -> list[Searches]:
    searches = []
    for repeat in range(REPEATS):
        parts = split(labels, seed + repeat)
        if parts is None:
            raise EvaluationError(
                "Identification needs pictures of at least three people, two of them with several pictures each."
            )
        searches.append(search(embeddings, labels, parts))
    return searches


def _identify(searches: Sequence[Searches], threshold: float) -> Identification:
    shown = all(supports(len(found.strangers), FPIR) for found in searches)
    limits = [found.threshold(FPIR) for found in searches]
    return Identification(
        splits=len(searches),
        enrolled=float(np.mean([found.enrolled for found in searches])),
        known=float(np.mean([len(found.own) for found in searches])),
        unknown=float(np.mean([len(found.strangers) for found in searches])),
        rank1=_spread([found.rank(1) for found in searches]),
        rank5=_spread([found.rank(5) for found in searches]),
        fnir=_spread([found.fnir(limit) for found, limit in zip(searches, limits, strict=True)]) if shown else None,
        threshold=_spread(limits) if shown else None,
        fnir_configured=_spread([found.fnir(threshold) for found in searches]),
        fpir_configured=_spread([found.fpir(threshold) for found in searches]),
    )


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _account(
    root: Path,
    pairs: Sequence[Pair],
    pictures: Sequence[NamedPicture],
    subjects: Sequence[Subject],
    seconds: float,
) -> Pictures:
    there = {picture.name for picture in pictures}
    named = {name for pair in pairs for name in (pair.left, pair.right)}
    return Pictures(
        read=len(subjects),
        people=len({picture.person for picture in pictures}),
        used=sum(not subject.problem for subject in subjects),
        several=sum(subject.faces > 1 for subject in subjects),
        bordered=sum(subject.bordered and not subject.problem for subject in subjects),
        problems={
            subject.path.relative_to(root).as_posix(): subject.problem for subject in subjects if subject.problem
        },
        missing=tuple(sorted(map(str, named - there))),
        seconds=seconds,
    )
