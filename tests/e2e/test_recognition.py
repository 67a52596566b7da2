"""Real people, named over HTTP: leave-one-out, group pictures, and many requests at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from matchers.journal import write_both
from matchers.service import open_stores
from models.settings import Settings
from runtime.engine import FaceEngine

FOLDS = 5
PEOPLE = {"amy", "bernadette", "howard", "leonard", "penny", "raj", "sheldon", "stuart"}


# From left to right. In bbt2 the face at the left edge is cut in half: it gets no name.
IN_GROUPS = {
    "bbt1.jpg": ["raj", "leonard", "howard", "sheldon"],
    "bbt2.jpg": ["leonard", "sheldon"],
    "bbt3.jpg": ["sheldon", "howard", "penny", "raj", "leonard"],
    "bbt4.jpg": ["leonard", "amy", "raj", "penny", "sheldon", "bernadette"],
    "bbt5.jpg": ["raj", "penny", "sheldon", "leonard", "howard"],
}


@dataclass(frozen=True, slots=True)
class Cast:
    """Domains made of a folder of people.

    Attributes:
        data_dir: holds the galleries of ``all`` and of ``fold0`` to ``fold4``, which leave the i-th picture out.
        queries: person, picture left out, domain.
        groups: pictures of several people.
    """

    data_dir: Path
    queries: list[tuple[str, Path, str]]
    groups: list[Path]


@pytest.fixture(scope="module")
def cast(
    shared: Path,
    models_dir: Path,
    engine: FaceEngine,
    tmp_path_factory: pytest.TempPathFactory,
    run_matchers: Callable[..., str],
) -> Cast:
    people = sorted(folder for folder in (shared / "faces" / "bbt").iterdir() if folder.is_dir())
    assert {folder.name for folder in people} == PEOPLE
    data_dir = tmp_path_factory.mktemp("cast")
    run_matchers("sync", "--domain", "all", "--images", str(shared / "faces" / "bbt"), DATA_DIR=str(data_dir))
    queries = []
    settings = Settings(_env_file=None, data_dir=data_dir, models_dir=models_dir)
    with open_stores(settings, engine.embedder_card, engine.detector_card.name) as stores:
        everybody = stores.pkl.faces("all")
        for fold in range(FOLDS):
            left_out = {folder.name: sorted(folder.iterdir())[fold] for folder in people}
            queries += [(person, picture, f"fold{fold}") for person, picture in left_out.items()]
            gone = {f"{person}/{picture.name}" for person, picture in left_out.items()}
            faces = [face for face in everybody if face.source not in gone]
            assert len(faces) == len(people) * (FOLDS - 1)
            assert write_both(stores, f"fold{fold}", faces, ()).pgvector_error == ""
    return Cast(data_dir, queries, sorted((shared / "faces" / "groups").glob("*.jpg")))


@pytest.fixture(scope="module")
def dual(cast: Cast, start: Any) -> Iterator[Any]:
    with start(DATA_DIR=str(cast.data_dir)) as service:
        yield service


def asked(cast: Cast, service: Any) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Person, answer and the one face of each query."""
    answers = service.analyze_all([(picture, domain) for _, picture, domain in cast.queries], threads=4)
    found = []
    for (person, picture, _), answer in zip(cast.queries, answers, strict=True):
        assert len(answer["faces"]) == 1, f"{picture.parent.name}/{picture.name}: {len(answer['faces'])} faces"
        found.append((person, answer, answer["faces"][0]))
    assert len(found) == 40
    return found


def test_dual_names_40_of_40_and_both_stores_agree(cast: Cast, dual: Any) -> None:
    for person, answer, face in asked(cast, dual):
        assert answer["mode"] == "dual"
        assert face["person"] == person
        assert face["pkl_results"][0]["person"] == person
        assert face["pgvector_results"][0]["person"] == person
        assert face["comparison"]["top1_match"] is True
        assert face["comparison"]["top5_overlap"] == 1.0
        assert face["comparison"]["max_distance_delta"] <= 1e-5
        assert answer["comparison"]["top1_match"] is True
        assert answer["recognized_faces"] == [person]
        for ours, theirs in zip(face["pkl_results"], face["pgvector_results"], strict=True):
            assert ours["distance"] == pytest.approx(theirs["distance"], abs=1e-5)


def test_pkl_only_names_40_of_40(cast: Cast, start: Any) -> None:
    with start(DATA_DIR=str(cast.data_dir), VECTOR_DB_ENABLED="false") as service:
        for person, answer, face in asked(cast, service):
            assert (answer["mode"], answer["comparison"]) == ("pkl_only", None)
            assert face["person"] == face["pkl_results"][0]["person"] == person
            assert face["pgvector_results"] == []


def test_pgvector_only_names_40_of_40(cast: Cast, start: Any) -> None:
    with start(DATA_DIR=str(cast.data_dir), VECTOR_DB_USE_PGVECTOR_ONLY="true") as service:
        for person, answer, face in asked(cast, service):
            assert (answer["mode"], answer["comparison"]) == ("pgvector_only", None)
            assert face["person"] == face["pgvector_results"][0]["person"] == person
            assert face["pkl_results"] == []


def test_group_pictures_hold_no_wrong_name(cast: Cast, dual: Any) -> None:
    assert [picture.name for picture in cast.groups] == list(IN_GROUPS)
    for picture in cast.groups:
        answer = dual.analyze(picture, "all")
        assert answer["comparison"]["top1_match"] is True
        assert answer["recognized_faces"] == IN_GROUPS[picture.name]
        named = [face["person"] for face in answer["faces"] if face["person"]]
        assert sorted(named) == sorted(IN_GROUPS[picture.name]), f"{picture.name}: somebody was named twice"


def test_200_dual_requests_from_32_threads_equal_the_sequential_answers(cast: Cast, dual: Any) -> None:
    pictures = [(picture, domain) for _, picture, domain in cast.queries] + [(path, "all") for path in cast.groups]
    expected = [stable(dual.analyze(*asked)) for asked in pictures]
    many = [pictures[number % len(pictures)] for number in range(200)]
    answers = dual.analyze_all(many, threads=32)
    assert len(answers) == 200
    for number, answer in enumerate(answers):
        assert stable(answer) == expected[number % len(pictures)]
    assert dual.process.poll() is None
    assert dual.client.get("/health/ready").json()["status"] == "ready"


def stable(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs from one time to the next."""
    return {key: value for key, value in answer.items() if key != "timing_ms"}
