"""May a domain leave PKL? The figures that must hold before pgvector answers alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from models.settings import Settings


@dataclass(frozen=True, slots=True)
class Gates:
    """What is asked for.

    Attributes:
        min_comparisons: faces for which both stores answered.
        min_top1_rate: share of them for which both name the same person first, 0 to 1.
        min_overlap: mean share of the first five results that both hold, 0 to 1; of those that count, as above
            (:class:`matchers.compare.Comparison`).
        max_failure_rate: share of searches that pgvector failed to answer, 0 to 1.
        in_sync: whether both stores must hold the same pictures with the same content.
    """

    min_comparisons: int = 50
    min_top1_rate: float = 0.99
    min_overlap: float = 0.98
    max_failure_rate: float = 0.01
    in_sync: bool = True


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured.

    Attributes:
        comparisons: faces for which both stores answered.
        top1_matches: those for which both name the same person first.
        overlap: mean share of the first five results that both hold, 0 to 1; 0 without comparisons.
        searches: searches that pgvector was asked for.
        failures: those that it did not answer.
        differences: pictures that only one store holds, or that they hold with other content; None when not known.
    """

    comparisons: int
    top1_matches: int
    overlap: float
    searches: int
    failures: int
    differences: int | None

    @property
    def top1_rate(self) -> float:
        """Share of comparisons that name the same person first; 0 without comparisons."""
        return self.top1_matches / self.comparisons if self.comparisons else 0.0

    @property
    def failure_rate(self) -> float:
        """Share of searches that failed; 0 without searches."""
        return self.failures / self.searches if self.searches else 0.0


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate, looked at.

    Attributes:
        name: ``comparisons``, ``top1_rate``, ``top5_overlap``, ``failure_rate`` or ``differences``.
        figure: what was measured; None when it is not known, which does not hold.
        limit: what is asked for.
        at_least: whether ``figure`` must reach ``limit``; otherwise it must not exceed it.
        holds: whether the gate is open.
    """

    name: str
    figure: float | None
    limit: float
    at_least: bool
    holds: bool

    def __str__(self) -> str:
        figure = "not known" if self.figure is None else f"{self.figure:.6g}"
        return f"{self.name} {figure} ({'at least' if self.at_least else 'at most'} {self.limit:g})"


_NOTHING = Figures(comparisons=0, top1_matches=0, overlap=0.0, searches=0, failures=0, differences=None)


def gates_of(settings: Settings) -> Gates:
    """The gates that the settings ask for."""
    return Gates(
        settings.gate_comparisons,
        settings.gate_top1_rate,
        settings.gate_top5_overlap,
        settings.gate_failure_rate,
        settings.gate_in_sync,
    )


def check(gates: Gates, figures: Figures) -> list[GateResult]:
    """Every gate with its figure; the way is open when all hold."""
    results = [
        _at_least("comparisons", figures.comparisons, gates.min_comparisons),
        _at_least("top1_rate", figures.top1_rate, gates.min_top1_rate),
        _at_least("top5_overlap", figures.overlap, gates.min_overlap),
        _at_most("failure_rate", figures.failure_rate, gates.max_failure_rate),
    ]
    if gates.in_sync:
        results.append(_at_most("differences", figures.differences, 0))
    return results


def not_known(gates: Gates) -> list[GateResult]:
    """Every gate where nothing could be measured: none holds."""
    return [replace(result, figure=None, holds=False) for result in check(gates, _NOTHING)]


def _at_least(name: str, figure: float, limit: float) -> GateResult:
    return GateResult(name, figure, limit, at_least=True, holds=figure >= limit)


def _at_most(name: str, figure: float | None, limit: float) -> GateResult:
    return GateResult(name, figure, limit, at_least=False, holds=figure is not None and figure <= limit)
