"""An evaluation as a page and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from matchers.evaluation import FPIR, Evaluation, Identification, Verification
from matchers.html import Fact, Page, Plot, Section, Table
from matchers.plots import distance_histograms, identification_errors, receiver_operating_characteristic
from runtime.identification import Searches
from runtime.verification import Point, roc

_LISTED = 200
_PERSONAL = (
    "This report names pictures and so the people in them. Keep it where the pictures may be kept, and delete it with "
    "them."
)


def as_json(evaluation: Evaluation, models: str) -> dict[str, Any]:
    """What ``--json`` prints and ``report.json`` holds."""
    verification = evaluation.verification
    measured = None
    if verification is not None:
        folds = verification.folds
        measured = asdict(verification) | {
            "accuracy": folds.mean,
            "deviation": folds.deviation,
            "standard_error": folds.standard_error,
        }
    recommendation = evaluation.recommendation
    return {
        "models": models,
        "threshold": evaluation.threshold,
        "pictures": asdict(evaluation.pictures) | {"per_second": round(evaluation.pictures.per_second, 2)},
        "verification": measured,
        "identification": None if evaluation.identification is None else asdict(evaluation.identification),
        "recommendation": None
        if recommendation is None
        else asdict(recommendation) | {"statement": recommendation.statement()},
    }


def as_page(evaluation: Evaluation, models: str, images: str, made: str) -> Page:
    """The report for people."""
    pictures = evaluation.pictures
    sections = []
    if evaluation.verification is not None:
        sections.append(_verification(evaluation, evaluation.verification))
    if evaluation.identification is not None and evaluation.searches is not None:
        sections.append(_identification(evaluation.identification, evaluation.searches, evaluation.threshold))
    sections.append(_pictures(evaluation))
    return Page(
        title="How well the models tell people apart",
        lede=f"{models}, on {pictures.used:,} pictures of {pictures.people:,} people in {images}.",
        made=made,
        good=None,
        verdict="" if evaluation.recommendation is None else evaluation.recommendation.statement(),
        personal=_PERSONAL,
        facts=_facts(evaluation),
        sections=sections,
    )


def verification_rows(verification: Verification) -> list[tuple[str, str]]:
    """Name and value of each figure, for tables."""
    folds = verification.folds
    return [
        (f"accuracy ({len(folds.accuracies)} folds)", f"{folds.mean:.2%} ± {folds.deviation:.2%}"),
        ("accuracy, failed pairs as wrong", f"{verification.accuracy_all:.2%}"),
        *((f"TAR at FAR {far}", _tar(point)) for far, point in verification.points.items()),
        ("equal error rate", f"{verification.equal_error_rate.far:.2%}"),
        ("area under the curve", f"{verification.area:.5f}"),
        ("at the service's threshold", f"TAR {verification.configured.tar:.2%}, FAR {verification.configured.far:.2%}"),
        ("pairs of one person, of two", f"{verification.genuine:,}, {verification.impostor:,}"),
        ("left out: picture missing, no face", f"{verification.missing:,}, {verification.failed:,}"),
    ]


def identification_rows(found: Identification) -> list[tuple[str, str]]:
    """Name and value of each figure, for tables."""
    fnir = "too few unknown probes" if found.fnir is None else _percent(found.fnir)
    configured = f"FNIR {_percent(found.fnir_configured)}, FPIR {_percent(found.fpir_configured)}"
    return [
        ("rank 1", _percent(found.rank1)),
        ("rank 5", _percent(found.rank5)),
        (f"FNIR at FPIR {FPIR:g}", fnir),
        (
            "at the service's threshold",
            configured,
        ),
        ("enrolled, known and unknown probes", f"{found.enrolled:.0f}, {found.known:.0f}, {found.unknown:.0f}"),
        ("random splits", str(found.splits)),
    ]


def _facts(evaluation: Evaluation) -> list[Fact]:
    facts = []
    verification, identification = evaluation.verification, evaluation.identification
    if verification is not None:
        folds = verification.folds
        facts.append(
            Fact("Accuracy", f"{folds.mean:.2%}", f"± {folds.deviation:.2%} over {len(folds.accuracies)} folds")
        )
        facts += [Fact(f"TAR at FAR {far}", _tar(point)) for far, point in verification.points.items()]
        facts.append(Fact("Equal error rate", f"{verification.equal_error_rate.far:.2%}"))
    if identification is not None:
        facts.append(Fact("Rank 1", f"{identification.rank1[0]:.2%}", f"± {identification.rank1[1]:.2%}"))
        if identification.fnir is not None:
            facts.append(Fact(f"FNIR at FPIR {FPIR:g}", f"{identification.fnir[0]:.2%}"))
    facts.append(Fact("Threshold of the service", f"{evaluation.threshold:.4f}"))
    if evaluation.recommendation is not None and evaluation.recommendation.threshold is not None:
        wanted = f"for a false-match rate of {evaluation.recommendation.fmr:g}"
        facts.append(Fact("Threshold recommended", f"{evaluation.recommendation.threshold:.4f}", wanted))
    facts.append(Fact("Pictures a second", f"{evaluation.pictures.per_second:.1f}"))
    return facts


def _verification(evaluation: Evaluation, verification: Verification) -> Section:
    genuine, impostor = evaluation.genuine, evaluation.impostor
    marks = {"the service's threshold": (verification.configured.far, verification.configured.tar)}
    marks |= {f"FAR {far}": (point.far, point.tar) for far, point in verification.points.items() if point is not None}
    folds = verification.folds
    return Section(
        "Verification: one picture against one other",
        "Each fold is decided at the threshold that is best on the other folds. TAR is the share of pairs of one "
        "person that are accepted, FAR that of pairs of two people.",
        tables=(
            Table(("figure", "value"), verification_rows(verification)),
            Table(
                ("fold", "accuracy", "threshold"),
                [
                    (str(number), f"{accuracy:.2%}", f"{threshold:.4f}")
                    for number, (accuracy, threshold) in enumerate(
                        zip(folds.accuracies, folds.thresholds, strict=True), start=1
                    )
                ],
            ),
        ),
        plots=(
            Plot(
                "Receiver operating characteristic",
                receiver_operating_characteristic(roc(genuine, impostor), marks),
                "Every point is a threshold: what it accepts rightly and wrongly.",
            ),
            Plot(
                "Distances",
                distance_histograms(genuine, impostor, evaluation.threshold),
                "Pairs of one person should lie left of the threshold, pairs of two people right of it.",
            ),
        ),
    )


def _identification(found: Identification, searches: Searches, threshold: float) -> Section:
    return Section(
        "Identification: one picture against a gallery",
        "One picture of each enrolled person is in the gallery, the others are searched; some people are not enrolled. "
        "FPIR is the share of pictures of unknown people that get a name, FNIR that of pictures of enrolled people "
        "that do not get theirs.",
        tables=(Table(("figure", "value"), identification_rows(found)),),
        plots=(
            Plot(
                "Errors with unknown people",
                identification_errors(*searches.curve(), (searches.fpir(threshold), searches.fnir(threshold))),
                "Every point is a threshold, for the first of the splits.",
            ),
        ),
    )


def _pictures(evaluation: Evaluation) -> Section:
    pictures = evaluation.pictures
    folded = []
    if pictures.problems:
        lines = [f"{source}: {reason}" for source, reason in pictures.problems.items()]
        folded.append((f"{len(lines):,} pictures without a usable face", _shortened(lines)))
    if pictures.missing:
        folded.append((f"{len(pictures.missing):,} pictures that are not there", _shortened(list(pictures.missing))))
    return Section(
        "Pictures",
        f"{pictures.read:,} were read, {pictures.used:,} have a usable face. In {pictures.several:,} there were "
        f"several faces; the largest near the middle counts. In {pictures.bordered:,} a face was found only after a "
        "black border was laid around the picture.",
        folded=folded,
    )


def _shortened(lines: list[str]) -> list[str]:
    rest = len(lines) - _LISTED
    return lines if rest <= 0 else [*lines[:_LISTED], f"and {rest:,} more; report.json lists them all"]


def _tar(point: Point | None) -> str:
    return "too few pairs" if point is None else f"{point.tar:.2%}"


def _percent(rate: tuple[float, float]) -> str:
    return f"{rate[0]:.2%} ± {rate[1]:.2%}"
