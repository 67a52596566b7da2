"""What two stores' results have in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchers.base import Match
from matchers.compare import Comparison, compare, merge

MATCHES = st.builds(
    Match,
    st.sampled_from(["amy", "bob", "eve"]),
    st.floats(0, 2, allow_nan=False),
    st.sampled_from(["1.jpg", "2.jpg", "3.jpg"]),
)
RESULTS = st.lists(MATCHES, max_size=8).map(lambda matches: sorted(matches, key=lambda match: match.distance))
UNIQUE = st.lists(MATCHES, max_size=8, unique_by=lambda match: (match.person, match.source)).map(
    lambda matches: sorted(matches, key=lambda match: match.distance)
)
COMPARISONS = st.builds(Comparison, st.booleans(), st.floats(0, 1), st.floats(0, 2))


def results(*matches: tuple[str, float]) -> list[Match]:
    return [Match(source.partition("/")[0], distance, source) for source, distance in matches]


def test_equal_results_agree_fully() -> None:
    same = results(("amy/1.jpg", 0.1), ("bob/1.jpg", 0.4))
    assert compare(same, same) == Comparison(top1_match=True, top5_overlap=1.0, max_distance_delta=0.0)


def test_another_person_first_is_no_match_even_when_both_lists_hold_the_same() -> None:
    ours = results(("amy/1.jpg", 0.10), ("bob/1.jpg", 0.11))
    theirs = results(("bob/1.jpg", 0.09), ("amy/1.jpg", 0.10))
    comparison = compare(ours, theirs)
    assert not comparison.top1_match
    assert comparison.top5_overlap == 1.0
    assert comparison.max_distance_delta == pytest.approx(0.02)


def test_another_picture_of_the_same_person_first_is_a_match() -> None:
    assert compare(results(("amy/1.jpg", 0.1)), results(("amy/2.jpg", 0.1))).top1_match


def test_an_empty_list_disagrees_with_a_full_one_and_agrees_with_an_empty_one() -> None:
    some = results(("amy/1.jpg", 0.1))
    assert compare(some, []) == Comparison(top1_match=False, top5_overlap=0.0, max_distance_delta=0.0)
    assert compare([], []) == Comparison(top1_match=True, top5_overlap=1.0, max_distance_delta=0.0)


def test_the_overlap_counts_the_first_five_only() -> None:
    ours = results(*((f"amy/{n}.jpg", n / 10) for n in range(6)))
    theirs = results(*((f"amy/{n}.jpg", n / 10) for n in (0, 1, 2, 3, 5, 4)))
    assert compare(ours, theirs).top5_overlap == pytest.approx(0.8)


def test_two_faces_of_one_picture_are_paired_nearest_with_nearest() -> None:
    ours = results(("amy/1.jpg", 0.1), ("amy/1.jpg", 0.5))
    theirs = results(("amy/1.jpg", 0.1), ("amy/1.jpg", 0.6))
    assert compare(ours, theirs).max_distance_delta == pytest.approx(0.1)


THRESHOLD = 0.5
AGREE = Comparison(top1_match=True, top5_overlap=1.0, max_distance_delta=0.0)
LIST = results(("amy/1.jpg", 0.1), ("amy/2.jpg", 0.4), ("bob/1.jpg", 0.7), ("eve/1.jpg", 0.8), ("kim/1.jpg", 0.9))


def test_what_an_index_misses_beyond_the_threshold_does_not_count() -> None:
    missed = [*LIST[:2], *LIST[3:], *results(("zoe/1.jpg", 0.95))]
    assert compare(LIST, missed).top5_overlap == pytest.approx(0.8)
    assert compare(LIST, missed, THRESHOLD) == AGREE
    strangers = results(("bob/1.jpg", 0.7), ("eve/1.jpg", 0.8)), results(("kim/1.jpg", 0.9), ("zoe/1.jpg", 0.95))
    assert not compare(*strangers).top1_match
    assert compare(*strangers, THRESHOLD) == AGREE


def test_what_an_index_misses_within_the_threshold_counts() -> None:
    nearest = compare(LIST, [*LIST[1:], *results(("zoe/1.jpg", 0.95))], THRESHOLD)
    assert (nearest.top1_match, nearest.top5_overlap) == (True, pytest.approx(0.8))
    person = compare(LIST, [*LIST[2:], *results(("zoe/1.jpg", 0.95), ("zoe/2.jpg", 0.96))], THRESHOLD)
    assert (person.top1_match, person.top5_overlap) == (False, pytest.approx(0.6))


def test_what_pkl_would_have_found_counts_beyond_the_threshold() -> None:
    comparison = compare(LIST, [*LIST[:2], *results(("zoe/1.jpg", 0.6)), *LIST[2:4]], THRESHOLD)
    assert (comparison.top1_match, comparison.top5_overlap) == (True, pytest.approx(0.8))
    stranger = compare(LIST[2:], [*results(("zoe/1.jpg", 0.6)), *LIST[2:4]], THRESHOLD)
    assert (stranger.top1_match, stranger.top5_overlap) == (False, pytest.approx(2 / 3))


def test_a_face_just_at_the_threshold_is_no_disagreement() -> None:
    ours, theirs = results(("amy/1.jpg", THRESHOLD - 1e-7)), results(("amy/1.jpg", THRESHOLD + 1e-7))
    comparison = compare(ours, theirs, THRESHOLD)
    assert (comparison.top1_match, comparison.top5_overlap) == (True, 1.0)


@pytest.mark.parametrize("length", range(len(LIST)))
def test_an_index_gives_as_many_as_are_asked_for(length: int) -> None:
    for lists in ((LIST, LIST[:length]), (LIST[:length], LIST), (LIST[2:], LIST[3 : 3 + length % 2])):
        assert compare(*lists, THRESHOLD) == compare(*lists)
        assert compare(*lists, THRESHOLD).top5_overlap < 1


@given(
    st.lists(st.integers(0, 1000), min_size=8, max_size=30, unique=True), st.sets(st.integers(0, 29)), st.integers(1, 8)
)
def test_any_part_of_what_is_far_may_be_missed_and_nothing_near(
    distances: list[int], missed: set[int], depth: int
) -> None:
    everything = results(*((f"p{rank // 2}/{rank}.jpg", each / 1000) for rank, each in enumerate(sorted(distances))))
    found = [match for rank, match in enumerate(everything) if rank not in missed or match.distance <= THRESHOLD]
    pkl, pgvector = everything[:depth], found[:depth]
    comparison = compare(pkl, pgvector, THRESHOLD)
    assert comparison == (AGREE if len(pkl) == len(pgvector) else compare(pkl, pgvector))
    if pkl[0].distance <= THRESHOLD:
        lost = compare(pkl, everything[1 : depth + 1], THRESHOLD)
        assert not lost.top1_match or lost.top5_overlap < 1


@given(RESULTS, RESULTS)
def test_the_order_of_the_stores_does_not_matter(left: list[Match], right: list[Match]) -> None:
    assert compare(left, right) == compare(right, left)


@given(RESULTS, RESULTS)
def test_figures_stay_in_their_range(left: list[Match], right: list[Match]) -> None:
    comparison = compare(left, right)
    assert 0 <= comparison.top5_overlap <= 1
    assert 0 <= comparison.max_distance_delta <= 2


@given(UNIQUE, st.floats(0, 0.01))
def test_a_shift_of_all_distances_is_the_delta(matches: list[Match], shift: float) -> None:
    shifted = [Match(match.person, match.distance + shift, match.source) for match in matches]
    comparison = compare(matches, shifted)
    assert comparison.top1_match
    assert comparison.top5_overlap == 1.0
    assert comparison.max_distance_delta == pytest.approx(shift if matches else 0, abs=1e-12)


@given(st.lists(COMPARISONS, min_size=1))
def test_a_picture_is_as_good_as_its_worst_face(comparisons: list[Comparison]) -> None:
    merged = merge(comparisons)
    assert merged.top1_match == all(comparison.top1_match for comparison in comparisons)
    assert merged.max_distance_delta == max(comparison.max_distance_delta for comparison in comparisons)
    overlaps = [comparison.top5_overlap for comparison in comparisons]
    assert min(overlaps) - 1e-9 <= merged.top5_overlap <= max(overlaps) + 1e-9


def test_a_picture_without_faces_agrees() -> None:
    assert merge([]) == Comparison(top1_match=True, top5_overlap=1.0, max_distance_delta=0.0)
