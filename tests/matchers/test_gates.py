"""The gates between dual and pgvector_only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from matchers.gates import Figures, Gates, check, gates_of
from models.settings import Settings

GOOD = Figures(comparisons=100, top1_matches=100, overlap=1.0, searches=100, failures=0, differences=0)


def failing(gates: Gates, figures: Figures) -> list[str]:
    return [result.name for result in check(gates, figures) if not result.holds]


def test_good_figures_open_every_gate() -> None:
    assert failing(Gates(), GOOD) == []


@pytest.mark.parametrize(
    ("figures", "name"),
    [
        (replace(GOOD, comparisons=49, top1_matches=49), "comparisons"),
        (replace(GOOD, top1_matches=98), "top1_rate"),
        (replace(GOOD, overlap=0.97), "top5_overlap"),
        (replace(GOOD, failures=2), "failure_rate"),
        (replace(GOOD, differences=1), "differences"),
        (replace(GOOD, differences=None), "differences"),
    ],
)
def test_one_bad_figure_closes_its_gate_alone(figures: Figures, name: str) -> None:
    assert failing(Gates(), figures) == [name]


def test_a_figure_at_its_limit_holds() -> None:
    assert failing(Gates(), Figures(50, 50, 0.98, 100, 1, 0)) == []


def test_nothing_measured_holds_nothing_up() -> None:
    assert failing(Gates(), Figures(0, 0, 0.0, 0, 0, None)) == [
        "comparisons",
        "top1_rate",
        "top5_overlap",
        "differences",
    ]


def test_limits_come_from_the_settings() -> None:
    settings = Settings(
        _env_file=None,
        gate_comparisons=7,
        gate_top1_rate=0.5,
        gate_top5_overlap=0.4,
        gate_failure_rate=0.3,
        gate_in_sync=False,
    )
    assert gates_of(settings) == Gates(7, 0.5, 0.4, 0.3, in_sync=False)
    assert failing(gates_of(settings), replace(GOOD, differences=5)) == []


def test_a_gate_says_its_figure_and_its_limit() -> None:
    texts = [str(result) for result in check(Gates(), replace(GOOD, differences=None))]
    assert texts[1] == "top1_rate 1 (at least 0.99)"
    assert texts[-1] == "differences not known (at most 0)"


def test_the_settings_have_the_same_defaults() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert gates_of(Settings.model_construct(**defaults)) == Gates()
