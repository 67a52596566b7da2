"""The demo domain is made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from matchers.base import GalleryFace
from matchers.demo import DOMAIN, ensure_demo
from matchers.gallery import PklStore
from matchers.journal import recover, write_both, writing
from matchers.pgvector import PgvectorStore
from matchers.service import Stores
from runtime.engine import FaceEngine

DEAD = "host=127.0.0.1 port=1 user=nobody dbname=nothing"


@pytest.fixture
def stores(tmp_path: Path, engine: FaceEngine, database: str, group_picture: Path) -> Iterator[Stores]:
    with PgvectorStore(database, engine.embedder_card, 10.0) as pgvector:
        yield Stores(PklStore(tmp_path / "galleries", engine.embedder_card, "retinaface"), pgvector)


def counts(stores: Stores) -> tuple[int, int]:
    assert stores.pgvector is not None
    return stores.pkl.count(DOMAIN), stores.pgvector.count(DOMAIN)


def test_it_does_not_come_back_once_somebody_deleted_it(engine: FaceEngine, stores: Stores) -> None:
    assert ensure_demo(engine, stores) is True
    assert counts(stores) == (6, 6)
    assert len(list((stores.data_dir / "thumbnails" / DOMAIN).iterdir())) == 6
    assert ensure_demo(engine, stores) is False
    with writing(stores, DOMAIN) as writer:
        writer.drop()
    assert ensure_demo(engine, stores) is False
    assert counts(stores) == (0, 0)
    assert ensure_demo(engine, stores, again=True) is True
    assert counts(stores) == (6, 6)


def test_a_database_that_was_down_gets_it_later(engine: FaceEngine, stores: Stores) -> None:
    with PgvectorStore(DEAD, engine.embedder_card, 10.0) as dead:
        assert ensure_demo(engine, Stores(stores.pkl, dead)) is True
    assert counts(stores) == (6, 0)
    assert recover(stores) == {}
    assert counts(stores) == (6, 6)


def test_somebody_elses_domain_of_that_name_is_left_alone(engine: FaceEngine, stores: Stores) -> None:
    embedding = np.eye(1, engine.embedder_card.dimension, dtype=np.float32)[0]
    amy = GalleryFace("amy", "amy/1.jpg", "", embedding, (0, 0, 9, 9))
    write_both(stores, DOMAIN, [amy], ())
    assert ensure_demo(engine, stores) is False
    assert counts(stores) == (1, 1)
