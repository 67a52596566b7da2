"""Both stores as one: under kills, without the database, and from many writers at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from restless_writer import DOMAIN, PEOPLE, PICTURES, change, portraits

from matchers.base import GalleryFace, GalleryStore
from matchers.errors import GalleryError, StoreUnavailable
from matchers.gallery import PklStore
from matchers.journal import pending, recover, write_both, writing
from matchers.pgvector import PgvectorStore
from matchers.service import Stores
from models.card import ModelCard

DEAD = "host=127.0.0.1 port=1 user=nobody dbname=nothing"
KILLS = 15


@pytest.fixture
def pkl(tmp_path: Path, embedder_card: ModelCard) -> PklStore:
    return PklStore(tmp_path / "galleries", embedder_card, "none")


@pytest.fixture
def stores(pkl: PklStore, embedder_card: ModelCard, database: str) -> Iterator[Stores]:
    with PgvectorStore(database, embedder_card, 10.0) as pgvector:
        yield Stores(pkl, pgvector)


@pytest.fixture
def cut_off(pkl: PklStore, embedder_card: ModelCard) -> Iterator[Stores]:
    """The same galleries while the database is down."""
    with PgvectorStore(DEAD, embedder_card, 10.0) as pgvector:
        yield Stores(pkl, pgvector)


def content(store: GalleryStore | None, domain: str = DOMAIN) -> dict[str, tuple[str, str]]:
    assert store is not None
    return {face.id: (face.person, face.digest) for face in store.faces(domain)}


def versions(store: GalleryStore | None) -> dict[str, int]:
    """The version of each person, all of whose pictures are of one version."""
    assert store is not None
    found: dict[str, list[GalleryFace]] = {}
    for face in store.faces(DOMAIN):
        found.setdefault(face.person, []).append(face)
    for person, faces in found.items():
        whole = portraits(person, int(faces[0].digest))
        assert [face.id for face in faces] == [face.id for face in whole], f"half of {person} is there"
        for held, meant in zip(faces, whole, strict=True):
            np.testing.assert_allclose(held.embedding, meant.embedding, atol=1e-6)
    return {person: int(faces[0].digest) for person, faces in found.items()}


def test_a_writer_killed_at_any_moment_leaves_the_stores_equal_and_everybody_whole(
    stores: Stores, tmp_path: Path, database: str
) -> None:
    command = [sys.executable, str(Path(__file__).with_name("restless_writer.py")), str(tmp_path), database]
    moment = random.Random(7)
    unfinished = 0
    certain: dict[str, int] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nursery:
        assert nursery.stdin is not None and nursery.stdout is not None
        for seed in range(1, KILLS + 1):
            print(seed, file=nursery.stdin, flush=True)
            writer = int(nursery.stdout.readline())
            time.sleep(moment.uniform(0.02, 0.25))
            os.kill(writer, signal.SIGKILL)
            lines = iter(nursery.stdout.readline, "gone\n")
            done = [change(seed, int(line)) for line in lines]
            certain.update(done)
            unfinished += bool(pending(stores))
            assert recover(stores, wait=10) == {}
            assert pending(stores) == {}
            ours, theirs = versions(stores.pkl), versions(stores.pgvector)
            assert ours == theirs
            next_person, next_version = change(seed, len(done))
            for person in (f"p{number}" for number in range(PEOPLE)):
                allowed = {certain.get(person, 0)} | ({next_version} if person == next_person else set())
                assert ours.get(person, 0) in allowed, f"{person} is of no version that was ever written"
            certain = dict(ours)
            kept = {path.stem for path in (tmp_path / "thumbnails" / DOMAIN).glob("*")}
            assert kept <= content(stores.pkl).keys(), "a thumbnail outlived its face"
        nursery.stdin.close()
    assert unfinished > 0, "no kill hit a writer between its intent and its end"


def test_writers_of_many_threads_and_stores_lose_nothing(
    stores: Stores, database: str, embedder_card: ModelCard, faces: Callable[..., list[GalleryFace]]
) -> None:
    def enrol(number: int) -> None:
        with PgvectorStore(database, embedder_card, 10.0) as pgvector:
            mine = Stores(PklStore(stores.pkl.root, embedder_card, "none"), pgvector)
            for round_ in range(3):
                write_both(mine, DOMAIN, faces(3, prefix=f"w{number}-{round_}-"), ())

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(enrol, range(6)))
    assert len(content(stores.pkl)) == 6 * 3 * 3
    assert content(stores.pkl) == content(stores.pgvector)


def test_what_the_database_missed_it_gets_when_it_is_back(stores: Stores, cut_off: Stores) -> None:
    write_both(stores, DOMAIN, [*portraits("amy", 1), *portraits("bob", 2)], ())
    assert "127.0.0.1" in write_both(cut_off, DOMAIN, portraits("amy", 3), ()).pgvector_error
    write_both(cut_off, DOMAIN, portraits("eve", 4), [face.source for face in portraits("bob", 2)])
    assert versions(stores.pkl) == {"amy": 3, "eve": 4}
    assert versions(stores.pgvector) == {"amy": 1, "bob": 2}
    assert pending(stores) == {DOMAIN: 2}
    assert "127.0.0.1" in recover(cut_off)[DOMAIN]
    assert pending(stores) == {DOMAIN: 2}
    assert recover(stores) == {}
    assert versions(stores.pgvector) == versions(stores.pkl)
    assert pending(stores) == {}


def test_the_next_writer_finishes_what_is_pending(stores: Stores, cut_off: Stores) -> None:
    write_both(cut_off, DOMAIN, portraits("amy", 1), ())
    write_both(stores, DOMAIN, portraits("bob", 2), ())
    assert versions(stores.pgvector) == versions(stores.pkl) == {"amy": 1, "bob": 2}
    assert pending(stores) == {}


def test_a_pending_change_holds_no_embedding_and_nobody_else_reads_it(cut_off: Stores) -> None:
    write_both(cut_off, DOMAIN, portraits("amy", 1), ())
    (entry,) = (path for path in cut_off.journal.rglob("*.json"))
    assert entry.stat().st_mode & 0o777 == 0o600
    assert cut_off.journal.stat().st_mode & 0o777 == 0o700
    assert entry.stat().st_size < 300
    assert "amy/0.jpg" in entry.read_text()


def test_a_domain_deleted_without_the_database_stays_deleted(stores: Stores, cut_off: Stores) -> None:
    write_both(stores, DOMAIN, portraits("amy", 1), ())
    with writing(cut_off, DOMAIN) as writer:
        assert writer.drop().pgvector_error
    write_both(cut_off, DOMAIN, portraits("bob", 2), ())
    assert recover(stores) == {}
    assert versions(stores.pkl) == versions(stores.pgvector) == {"bob": 2}
    with writing(cut_off, DOMAIN) as writer:
        writer.drop()
    assert recover(stores) == {}
    assert stores.pgvector is not None
    assert stores.pgvector.domains() == stores.pkl.domains() == []


def test_a_gallery_that_was_lost_does_not_empty_the_database(stores: Stores, cut_off: Stores) -> None:
    write_both(stores, DOMAIN, portraits("amy", 1), ())
    write_both(cut_off, DOMAIN, portraits("amy", 2), ())
    stores.pkl.path(DOMAIN).unlink()
    assert recover(stores) == {}
    assert versions(stores.pgvector) == {"amy": 1}


def test_a_face_that_does_not_fit_changes_nothing(stores: Stores) -> None:
    write_both(stores, DOMAIN, portraits("amy", 1), ())
    wrong = GalleryFace("bob", "eve/1.jpg", "", portraits("bob", 1)[0].embedding, (0, 0, 1, 1))
    with pytest.raises(GalleryError, match="names the person"):
        write_both(stores, DOMAIN, [wrong], ["amy/0.jpg"], {wrong.id: b"jpeg"})
    assert versions(stores.pkl) == versions(stores.pgvector) == {"amy": 1}
    assert pending(stores) == {}
    assert not list((stores.data_dir / "thumbnails").rglob("*.jpg"))


def test_a_writer_that_does_not_end_is_not_waited_for(stores: Stores) -> None:
    with writing(stores, DOMAIN), pytest.raises(StoreUnavailable, match="another writer"), writing(stores, DOMAIN, 0.1):
        pass


def test_thumbnails_go_with_their_faces(stores: Stores) -> None:
    amy = portraits("amy", 1)
    write_both(stores, DOMAIN, amy, (), {face.id: b"jpeg" for face in amy})
    folder = stores.data_dir / "thumbnails" / DOMAIN
    assert len(list(folder.iterdir())) == PICTURES
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    write_both(stores, DOMAIN, (), [amy[0].source])
    assert {path.stem for path in folder.iterdir()} == {face.id for face in amy[1:]}
