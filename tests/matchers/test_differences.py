"""Where the stores differ, and how one is made like the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from matchers.base import GalleryFace
from matchers.differences import Difference, by_person, differences, repair
from matchers.errors import GalleryError, NoPgvector, StoreUnavailable, UnknownDomain
from matchers.gallery import PklStore
from matchers.journal import write_both
from matchers.pgvector import PgvectorStore
from matchers.service import Stores
from models.card import ModelCard

DOMAIN = "office"
DEAD = "host=127.0.0.1 port=1 user=nobody dbname=nothing"


@pytest.fixture
def stores(tmp_path: Path, embedder_card: ModelCard, database: str) -> Iterator[Stores]:
    with PgvectorStore(database, embedder_card, 10.0) as pgvector:
        yield Stores(PklStore(tmp_path / "galleries", embedder_card, "none"), pgvector)


@pytest.fixture
def apart(stores: Stores, faces: Callable[..., list[GalleryFace]], unit: Callable[..., np.ndarray]) -> Stores:
    """Stores with one difference of each kind."""
    assert stores.pgvector is not None
    first, *rest = faces(8)
    write_both(stores, DOMAIN, [first, *rest], ())
    stores.pgvector.apply(DOMAIN, (), [rest[0].source])
    stores.pkl.apply(DOMAIN, (), [rest[1].source])
    changed = [
        replace(rest[2], digest="f" * 40),
        replace(rest[3], person="somebody"),
        replace(rest[4], box=(9, 9, 9, 9)),
        replace(rest[5], embedding=unit(1, seed=9)[0]),
    ]
    stores.pgvector.apply(DOMAIN, changed, ())
    return stores


def test_every_kind_of_difference_is_seen_by_person(apart: Stores) -> None:
    found = differences(apart, DOMAIN)
    assert found == (
        Difference("p0", "p0/1.jpg", "only_in_pkl"),
        Difference("p0", "p0/2.jpg", "only_in_pgvector"),
        Difference("p1", "p1/0.jpg", "other_content"),
        Difference("p1", "p1/1.jpg", "other_person"),
        Difference("p1", "p1/2.jpg", "other_faces"),
        Difference("p2", "p2/0.jpg", "other_embedding"),
    )
    assert [(one.pkl, one.pgvector) for one in found[:3]] == [(True, False), (False, True), (True, True)]
    assert by_person(found)["p0"] == {"only_in_pkl": 1, "only_in_pgvector": 1}


def test_what_a_gallery_file_rounds_is_no_difference(
    stores: Stores, faces: Callable[..., list[GalleryFace]], embedder_card: ModelCard
) -> None:
    write_both(stores, DOMAIN, faces(50), ())
    again = Stores(PklStore(stores.pkl.root, embedder_card, "none"), stores.pgvector)
    assert differences(again, DOMAIN) == ()


@pytest.mark.parametrize("direction", ["pkl_to_pgvector", "pgvector_to_pkl"])
def test_repair_goes_in_the_direction_asked_for(apart: Stores, direction: str) -> None:
    assert apart.pgvector is not None
    to_pkl = direction == "pgvector_to_pkl"
    if to_pkl:
        # No PKL gallery can hold a picture of somebody else's folder, so this difference has one direction only.
        with pytest.raises(GalleryError, match="somebody"):
            repair(apart, DOMAIN, "pgvector_to_pkl")
        apart.pgvector.apply(DOMAIN, apart.pkl.faces(DOMAIN, "p1"), ())
    before = {store: [face.id for face in store.faces(DOMAIN)] for store in (apart.pkl, apart.pgvector)}
    planned = repair(apart, DOMAIN, "pgvector_to_pkl" if to_pkl else "pkl_to_pgvector", dry_run=True)
    assert {store: [face.id for face in store.faces(DOMAIN)] for store in before} == before
    done = repair(apart, DOMAIN, "pgvector_to_pkl" if to_pkl else "pkl_to_pgvector")
    assert (done.copied, done.removed) == (planned.copied, planned.removed)
    assert done.removed == (("p0/1.jpg",) if to_pkl else ("p0/2.jpg",))
    assert differences(apart, DOMAIN) == ()
    assert [face.id for face in apart.pkl.faces(DOMAIN)] == before[apart.pgvector if to_pkl else apart.pkl]


def test_a_damaged_or_missing_gallery_is_written_anew(
    stores: Stores, faces: Callable[..., list[GalleryFace]], embedder_card: ModelCard
) -> None:
    write_both(stores, DOMAIN, faces(7), ())
    path = stores.pkl.path(DOMAIN)
    for harm in (lambda: path.write_bytes(b"no pickle"), path.unlink):
        harm()
        fresh = Stores(PklStore(stores.pkl.root, embedder_card, "none"), stores.pgvector)
        assert len(repair(fresh, DOMAIN, "pgvector_to_pkl").copied) == 7
        assert differences(fresh, DOMAIN) == ()
    path.unlink()
    with pytest.raises(UnknownDomain, match="PKL"):
        repair(stores, DOMAIN, "pkl_to_pgvector")
    assert stores.pgvector is not None
    assert stores.pgvector.count(DOMAIN) == 7


def test_without_pgvector_there_is_nothing_to_compare(stores: Stores, embedder_card: ModelCard) -> None:
    with pytest.raises(NoPgvector):
        differences(Stores(stores.pkl, None), DOMAIN)
    with PgvectorStore(DEAD, embedder_card, 5.0) as dead, pytest.raises(StoreUnavailable):
        differences(Stores(stores.pkl, dead), DOMAIN)
