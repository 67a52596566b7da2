"""Views of a face show the same face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from convert.portraits import Portrait, some_people
from convert.views import another_view, mirror, views
from runtime.align import align_similarity


def test_a_mirrored_face_is_cut_out_mirrored(portrait: Callable[[int], Portrait]) -> None:
    one = portrait(0)
    straight = align_similarity(one.image, one.face.landmarks)[0]
    turned = align_similarity(mirror(one).image, mirror(one).face.landmarks)[0]
    assert np.abs(straight[:, ::-1].astype(int) - turned).mean() < 4
    twice = mirror(mirror(one))
    np.testing.assert_array_equal(twice.image, one.image)
    np.testing.assert_allclose(twice.face.landmarks, one.face.landmarks)
    np.testing.assert_allclose(twice.face.boxes, one.face.boxes)


def test_another_view_differs_a_little(portrait: Callable[[int], Portrait]) -> None:
    one = portrait(0)
    other = another_view(one, np.random.default_rng(0), mirrored=False)
    moved = np.linalg.norm(other.face.landmarks - one.face.landmarks, axis=2)
    assert 0 < moved.max() < 15
    assert (other.person, other.source) == ("amy", "amy.png")
    assert np.abs(other.image.astype(int) - one.image).mean() > 0


def test_another_view_is_coarser(portrait: Callable[[int], Portrait]) -> None:
    random = np.random.default_rng(1)
    fine = replace(portrait(0), image=random.integers(90, 160, (220, 200, 3), np.uint8))
    for _ in range(5):
        seen = another_view(fine, random, mirrored=False).image.astype(float)
        assert seen.shape == fine.image.shape
        assert grain(seen) < grain(fine.image.astype(float))


def grain(image: np.ndarray) -> float:
    """How much neighbours differ, in parts of how much all do."""
    return float(np.abs(np.diff(image, axis=0)).mean() / image.std())


def test_views_begin_with_the_pictures_themselves_and_repeat_with_a_seed(portrait: Callable[[int], Portrait]) -> None:
    given = [portrait(0), portrait(1)]
    seen = views(given, 5, seed=7)
    assert seen[:2] == given
    assert [one.image.shape for one in seen] == [(220, 200, 3)] * 5
    again = views(given, 5, seed=7)
    np.testing.assert_array_equal(seen[4].image, again[4].image)
    assert not np.array_equal(views(given, 5, seed=8)[4].image, seen[4].image)
    assert views(given, 1) == given[:1]


def test_some_people_are_taken_whole() -> None:
    people = ["a", "a", "b", "b", "c", "c", "d", "d"]
    assert some_people(people, 8) == list(range(8))
    assert some_people(people, 4) == [0, 1, 4, 5]
    assert some_people(people, 3) == [0, 1, 6]
    assert some_people(["", "", "", ""], 2) == [0, 2]
    assert some_people([], 5) == []
