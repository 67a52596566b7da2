"""Why two stores disagree, what many comparisons say, and when that is enough."""

from __future__ import annotations

from dataclasses import replace

import pytest

from matchers.base import Match
from matchers.compare import compare
from matchers.gates import Gates, check
from matchers.reasons import REASONS, Reason, Whereabouts, disagree, reason, suspects
from matchers.summary import FaceFigures, RequestFigures, summarize

THRESHOLD = 0.5


def match(person: str, distance: float, picture: str = "1.jpg") -> Match:
    return Match(person, distance, f"{person}/{picture}")


LIST = [match("amy", 0.1), match("bob", 0.7), match("eve", 0.8)]
EVERYTHING = frozenset(
    {(person, f"{person}/{picture}.jpg") for person in ("amy", "bob", "eve", "zoe") for picture in ("1", "2")}
)
ALL = Whereabouts(EVERYTHING, EVERYTHING, indexed=False)


def test_equal_lists_agree() -> None:
    assert not disagree(LIST, LIST, THRESHOLD)
    assert reason(LIST, LIST, THRESHOLD, ALL) is None
    rounded = [replace(found, distance=found.distance + 1e-7) for found in LIST]
    assert reason(LIST, rounded, THRESHOLD, ALL) is None


def without(*keys: tuple[str, str]) -> frozenset[tuple[str, str]]:
    return EVERYTHING - set(keys)


ZOE = ("zoe", "zoe/1.jpg")
AT_EDGE = ([match("amy", THRESHOLD - 1e-6)], [match("amy", THRESHOLD + 1e-6)])
TIED = (
    [match("amy", 0.3), match("bob", 0.3 + 1e-7)],
    [match("bob", 0.3), match("amy", 0.3)],
)
MISSED = ([match("zoe", 0.2), *LIST], LIST)


@pytest.mark.parametrize(
    ("pkl", "pgvector", "whereabouts", "expected"),
    [
        (*MISSED, Whereabouts(EVERYTHING, without(ZOE), False), "missing_in_pgvector"),
        (*reversed(MISSED), Whereabouts(without(ZOE), EVERYTHING, False), "missing_in_pkl"),
        (LIST, [], Whereabouts(EVERYTHING, frozenset(), False), "missing_in_pgvector"),
        (*AT_EDGE, ALL, "threshold_edge"),
        (*TIED, ALL, "tie"),
        (*MISSED, Whereabouts(EVERYTHING, EVERYTHING, True), "approximate_index"),
        (*MISSED, ALL, "unexplained"),
        (LIST, [match("amy", 0.2), *LIST[1:]], ALL, "other_embedding"),
    ],
)
def test_each_disagreement_has_its_reason(
    pkl: list[Match], pgvector: list[Match], whereabouts: Whereabouts, expected: Reason
) -> None:
    assert disagree(pkl, pgvector, THRESHOLD)
    assert reason(pkl, pgvector, THRESHOLD, whereabouts) == expected
    assert expected in REASONS


INDEXED = replace(ALL, indexed=True)
FAR = [match("amy", 0.7), match("bob", 0.8), match("eve", 0.9)]


def test_what_an_index_missed_is_told_within_the_threshold_only() -> None:
    pgvector = [*FAR[1:], match("zoe", 0.95)]
    assert reason(FAR, pgvector, THRESHOLD, INDEXED) is None
    assert reason(FAR, pgvector, 0.75, INDEXED) == "approximate_index"
    assert reason(FAR, pgvector, THRESHOLD, ALL) == "unexplained"


def test_a_missing_face_is_told_at_any_distance() -> None:
    pgvector = [*FAR[1:], match("zoe", 0.95)]
    lacking = Whereabouts(EVERYTHING, without(("amy", "amy/1.jpg")), indexed=True)
    assert reason(FAR, pgvector, THRESHOLD, lacking) == "missing_in_pgvector"
    lacking = Whereabouts(without(ZOE), EVERYTHING, indexed=True)
    assert reason(FAR, pgvector, THRESHOLD, lacking) == "missing_in_pkl"


def test_an_index_is_not_blamed_for_faces_that_pkl_has_elsewhere() -> None:
    pgvector = [match("zoe", 0.6), *FAR[:2]]
    assert reason(FAR, pgvector, THRESHOLD, INDEXED) == "other_embedding"
    assert reason(FAR, pgvector, THRESHOLD, ALL) == "other_embedding"
    assert reason(FAR, [replace(FAR[0], distance=0.65), *FAR[1:]], THRESHOLD, INDEXED) == "other_embedding"


def test_an_index_is_not_blamed_for_an_edge_or_a_tie() -> None:
    end = [match("bob", 0.8)], [match("eve", 0.9)]
    at_edge = [[*found, *more] for found, more in zip(AT_EDGE, end, strict=True)]
    assert reason(at_edge[0], at_edge[1], THRESHOLD, INDEXED) == "threshold_edge"
    assert reason(*TIED, THRESHOLD, INDEXED) == "tie"


def test_the_fifth_result_may_be_one_of_several_equally_near() -> None:
    common = [match("amy", 0.1), match("amy", 0.2, "2.jpg"), match("bob", 0.3), match("bob", 0.4, "2.jpg")]
    pkl, pgvector = [*common, match("eve", 0.6)], [*common, match("zoe", 0.6)]
    assert suspects(pkl, pgvector) == {("eve", "eve/1.jpg"), ZOE}
    assert reason(pkl, pgvector, THRESHOLD, ALL) == "tie"


def test_several_faces_of_one_picture_are_no_other_embedding() -> None:
    pkl = [match("amy", 0.1), match("amy", 0.4), match("bob", 0.6)]
    assert reason(pkl, [pkl[0], pkl[1], pkl[2]], THRESHOLD, ALL) is None


def figures(pkl: list[Match], pgvector: list[Match], why: Reason | None = None) -> FaceFigures:
    return FaceFigures(compare(pkl, pgvector), disagree(pkl, pgvector, THRESHOLD), why)


def test_a_summary_counts_and_measures() -> None:
    requests = [RequestFigures(float(number), 2.0 * number, False) for number in range(1, 100)]
    requests.append(RequestFigures(100.0, None, True))
    faces = [figures(LIST, LIST)] * 98 + [figures(*MISSED, "missing_in_pgvector"), figures(*TIED)]
    summary = summarize(requests, faces)
    assert (summary.requests, summary.failures, summary.failure_rate) == (100, 1, 0.01)
    assert (summary.comparisons, summary.top1_rate) == (100, 0.98)
    assert summary.top5_overlap == pytest.approx((99 + 3 / 4) / 100)
    assert summary.latency_ms["pkl"] is not None
    assert summary.latency_ms["pkl"].p50 == pytest.approx(50.5)
    assert summary.latency_ms["pkl"].p99 == pytest.approx(99.01)
    assert summary.latency_ms["pgvector"] is not None
    assert summary.latency_ms["pgvector"].max == 198
    assert summary.disagreements == 2
    assert summary.reasons == {"missing_in_pgvector": 1, "unknown": 1}


def test_nothing_compared_has_no_figures() -> None:
    summary = summarize([], [])
    assert (summary.failure_rate, summary.top1_rate, summary.top5_overlap, summary.distance_delta) == (None,) * 4
    assert summary.latency_ms == {"pkl": None, "pgvector": None}


def test_the_gates_see_the_figures() -> None:
    summary = summarize(
        [RequestFigures(1.0, 2.0, False)] * 99 + [RequestFigures(1.0, None, True)],
        [figures(LIST, LIST)] * 98 + [figures(*MISSED)],
    )
    found = summary.figures(differences=3)
    assert (found.comparisons, found.top1_matches, found.searches, found.failures) == (99, 98, 100, 1)
    assert {result.name for result in check(Gates(), found) if not result.holds} == {"differences", "top1_rate"}
    assert {result.name for result in check(Gates(), summarize([], []).figures(0)) if not result.holds} == {
        "comparisons",
        "top1_rate",
        "top5_overlap",
    }
