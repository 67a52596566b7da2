"""Figures that decide whether a quantised network may serve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convert.errors import FacesError
from convert.identities import Gate, Verification, gates, of_folder, of_pictures, of_views, verify
from convert.portraits import Portrait, face_detector, folder_portraits
from runtime.pairs import PairsError


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def quiet(*_said: object) -> None:
    """Nobody listens."""


def test_networks_that_agree_have_equal_figures_and_noise_lowers_them(portrait: Callable[[int], Portrait]) -> None:
    people = [portrait(seed) for seed in range(6)]
    identities = of_views(people)
    assert (identities.genuine, identities.impostors, identities.are_people) == (90, 540, False)
    assert identities.far == pytest.approx(1 / 540)
    random = np.random.default_rng(0)
    centres = random.normal(size=(6, 64))
    embeddings = unit(centres[np.arange(36) % 6] + 0.3 * random.normal(size=(36, 64)))
    clean = verify(identities, embeddings, embeddings)
    assert (clean.accuracy, clean.tar) == (1, 1)
    noisy = unit(embeddings + 0.4 * random.normal(size=embeddings.shape))
    assert verify(identities, embeddings, embeddings.copy()) == clean
    cross, alone = verify(identities, noisy, embeddings), verify(identities, noisy, noisy)
    assert clean.accuracy > cross.accuracy > alone.accuracy
    failed = [gate.name for gate in gates(clean, alone, cross, "int8", identities.far) if not gate.holds]
    assert len(failed) == 4
    assert "TAR at FAR 0.0019, int8 against an fp32 gallery" in failed


def test_gates_admit_what_they_say() -> None:
    fp32 = Verification(0.994, 0.6, 0.98)
    near, far_off = Verification(0.992, 0.6, 0.975), Verification(0.9919, 0.6, 0.9749)
    assert all(gate.holds for gate in gates(fp32, near, near, "int8", 1e-3))
    assert not any(gate.holds for gate in gates(fp32, far_off, far_off, "int8", 1e-3))
    assert not Gate("mean cosine", float("nan"), 0.97).holds


def test_views_need_two_faces(portrait: Callable[[int], Portrait]) -> None:
    with pytest.raises(FacesError, match="at least two"):
        of_views([portrait(0)])


def test_people_are_compared_each_with_each(shared: Path, models_dir: Path) -> None:
    detector = face_detector(models_dir, quiet)
    folder = shared / "faces" / "bbt"
    found = of_folder(folder_portraits(folder, detector), folder.name)
    assert found is not None
    assert (found.genuine, found.impostors, found.suffice) == (80, 700, True)
    assert "40 pictures of bbt, 8 people: 80 pairs of one person, 700 of two" in found.about
    assert of_folder(found.portraits[:5], "amy alone") is None
    assert of_folder(found.portraits[::5], "one of each") is None


def test_a_pairs_file_says_what_to_compare(shared: Path, models_dir: Path, tmp_path: Path) -> None:
    detector = face_detector(models_dir, quiet)
    for person in ("amy", "raj"):
        (tmp_path / "people" / person).mkdir(parents=True)
        for number in (1, 2):
            target = tmp_path / "people" / person / f"{person}_{number:04d}.png"
            target.write_bytes((shared / "faces" / "bbt" / person / f"{person}{number}.png").read_bytes())
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("1\t2\namy\t1\t2\nraj\t1\t7\namy\t1\traj\t1\namy\t2\traj\t2\n")
    said: list[str] = []
    found = of_pictures(tmp_path / "people", pairs, detector, said.append, quiet)
    assert (found.genuine, found.impostors, found.suffice) == (1, 2, False)
    assert "left out 1 of 4 pairs" in said[-1]
    every = of_pictures(tmp_path / "people", None, detector, quiet, quiet)
    assert (every.genuine, every.impostors) == (2, 4)
    with pytest.raises(PairsError, match="is not a folder"):
        of_pictures(tmp_path / "nowhere", None, detector, quiet, quiet)
    (tmp_path / "people" / "amy" / "amy_0002.png").unlink()
    (tmp_path / "people" / "raj" / "raj_0002.png").unlink()
    with pytest.raises(FacesError, match="two pictures of one of them"):
        of_pictures(tmp_path / "people", None, detector, quiet, quiet)
