"""A folder of pictures brought into both stores, step by step."""

from __future__ import annotations

import hashlib
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from matchers.base import GalleryFace, GalleryStore
from matchers.errors import InvalidName
from matchers.folder import FolderError, read_folder
from matchers.gallery import PklStore
from matchers.pgvector import PgvectorStore
from matchers.service import Stores
from matchers.sync import BATCH, StoreReport, SyncReport, sync_folder
from runtime.engine import FaceEngine

DOMAIN = "office"
DEAD = "host=127.0.0.1 port=1 user=nobody dbname=nothing"


@pytest.fixture
def images(tmp_path: Path, portraits: list[bytes]) -> Path:
    """Two people, three pictures."""
    folder = tmp_path / "images"
    for name, data in zip(("amy/1.png", "amy/2.png", "bob/1.png"), portraits, strict=False):
        put(folder / name, data)
    return folder


@pytest.fixture
def stores(tmp_path: Path, engine: FaceEngine, database: str) -> Iterator[Stores]:
    with PgvectorStore(database, engine.embedder_card, 10.0) as pgvector:
        yield Stores(PklStore(tmp_path / "galleries", engine.embedder_card, "retinaface"), pgvector)


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def both(stores: Stores) -> list[GalleryStore]:
    assert stores.pgvector is not None
    return [stores.pkl, stores.pgvector]


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in folder.glob("*/*.png")
    }


def same_in_both(report: SyncReport, **counts: int) -> None:
    nothing = {"new": 0, "changed": 0, "removed": 0, "unchanged": 0}
    expected = StoreReport(**{**nothing, **counts}, error="")
    assert report.stores == {"pkl": expected, "pgvector": expected}
    assert report.complete


def test_the_first_sync_fills_both_stores_with_the_same(engine: FaceEngine, stores: Stores, images: Path) -> None:
    report = sync_folder(engine, stores, DOMAIN, images)
    same_in_both(report, new=3)
    assert (report.pictures, report.embedded, report.reused, report.problems) == (3, 3, 0, ())
    for store in both(stores):
        assert dict(store.inventory(DOMAIN)) == digests(images)
        assert [face.person for face in store.faces(DOMAIN)] == ["amy", "amy", "bob"]
    embedding = engine.analyze((images / "bob/1.png").read_bytes()).embeddings
    for store in both(stores):
        nearest = store.search(embedding, DOMAIN, None, 1)[0][0]
        assert (nearest.person, nearest.source) == ("bob", "bob/1.png")
        assert nearest.distance == pytest.approx(0, abs=1e-3)


def test_a_second_sync_embeds_nothing(engine: FaceEngine, stores: Stores, images: Path) -> None:
    sync_folder(engine, stores, DOMAIN, images)
    report = sync_folder(engine, stores, DOMAIN, images)
    same_in_both(report, unchanged=3)
    assert (report.embedded, report.reused) == (0, 0)


def test_new_changed_and_removed_pictures_are_followed(
    engine: FaceEngine, stores: Stores, images: Path, portraits: list[bytes]
) -> None:
    sync_folder(engine, stores, DOMAIN, images)
    put(images / "eve/1.png", portraits[3])
    put(images / "amy/1.png", portraits[4])
    (images / "bob/1.png").unlink()
    report = sync_folder(engine, stores, DOMAIN, images)
    same_in_both(report, new=1, changed=1, removed=1, unchanged=1)
    assert report.embedded == 2
    for store in both(stores):
        assert dict(store.inventory(DOMAIN)) == digests(images)
        assert store.count(DOMAIN) == 3
        nearest = store.search(engine.analyze(portraits[4]).embeddings, DOMAIN, None, 1)[0][0]
        assert (nearest.source, round(nearest.distance, 3)) == ("amy/1.png", 0)


def test_touching_a_file_does_not_count_as_a_change(engine: FaceEngine, stores: Stores, images: Path) -> None:
    sync_folder(engine, stores, DOMAIN, images)
    put(images / "amy/1.png", (images / "amy/1.png").read_bytes())
    same_in_both(sync_folder(engine, stores, DOMAIN, images), unchanged=3)


def test_a_moved_picture_keeps_its_embedding(engine: FaceEngine, stores: Stores, images: Path) -> None:
    sync_folder(engine, stores, DOMAIN, images)
    (images / "bob").rename(images / "robert")
    report = sync_folder(engine, stores, DOMAIN, images)
    same_in_both(report, new=1, removed=1, unchanged=2)
    assert (report.embedded, report.reused) == (0, 1)
    for store in both(stores):
        assert [(face.person, face.source) for face in store.faces(DOMAIN)][-1] == ("robert", "robert/1.png")


def test_a_picture_of_a_group_that_was_enrolled_face_by_face_is_not_taken_for_a_moved_one(
    engine: FaceEngine, stores: Stores, images: Path
) -> None:
    data = (images / "bob/1.png").read_bytes()
    digest = hashlib.sha1(data).hexdigest()
    other = np.eye(1, engine.embedder_card.dimension, dtype=np.float32)[0]
    held = [GalleryFace(person, f"{person}/old.png", digest, other, (0, 0, 9, 9)) for person in ("guest-1", "guest-2")]
    stores.pkl.apply(DOMAIN, held, ())
    sync_folder(engine, stores, DOMAIN, images)
    nearest = stores.pkl.search(engine.analyze(data).embeddings, DOMAIN, None, 1)[0][0]
    assert (nearest.source, round(nearest.distance, 3)) == ("bob/1.png", 0)


def test_a_store_that_lags_is_filled_from_the_other_one(engine: FaceEngine, stores: Stores, images: Path) -> None:
    sync_folder(engine, stores, DOMAIN, images)
    for lagging, full in (both(stores), both(stores)[::-1]):
        lagging.drop(DOMAIN)
        report = sync_folder(engine, stores, DOMAIN, images)
        assert sorted((store.new, store.unchanged) for store in report.stores.values()) == [(0, 3), (3, 0)]
        assert (report.embedded, report.reused) == (0, 3)
        for copy, original in zip(lagging.faces(DOMAIN), full.faces(DOMAIN), strict=True):
            assert (copy.person, copy.source, copy.digest, copy.box) == (
                original.person,
                original.source,
                original.digest,
                original.box,
            )
            np.testing.assert_allclose(copy.embedding, original.embedding, atol=1e-3)


def test_a_large_domain_is_copied_in_batches(engine: FaceEngine, stores: Stores, tmp_path: Path) -> None:
    count = 2 * BATCH + 7
    rows = np.random.default_rng(1).normal(size=(count, engine.embedder_card.dimension))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    faces = []
    for index, row in enumerate(rows.astype(np.float32)):
        data = f"not a picture, and never read as one: {index}".encode()
        put(tmp_path / "many/amy" / f"{index}.png", data)
        faces.append(GalleryFace("amy", f"amy/{index}.png", hashlib.sha1(data).hexdigest(), row, (0, 0, 9, 9)))
    stores.pkl.apply(DOMAIN, faces, ())
    report = sync_folder(engine, stores, DOMAIN, tmp_path / "many")
    assert (report.embedded, report.reused, report.stores["pgvector"].new) == (0, count, count)
    ours, theirs = (store.inventory(DOMAIN) for store in both(stores))
    assert dict(ours) == dict(theirs)


def test_pictures_that_cannot_be_enrolled_are_reported_and_the_rest_is_done(
    engine: FaceEngine, stores: Stores, images: Path, group_picture: Path
) -> None:
    put(images / "amy/group.jpg", group_picture.read_bytes())
    put(images / "amy/wall.png", cv2.imencode(".png", np.full((200, 200, 3), 90, np.uint8))[1].tobytes())
    put(images / "bob/text.jpg", b"this is no picture")
    put(images / "bob/cut.jpg", group_picture.read_bytes()[:20_000])
    put(images / "bob/empty.jpg", b"")
    put(images / "stray.png", (images / "amy/1.png").read_bytes())
    report = sync_folder(engine, stores, DOMAIN, images)
    same_in_both(report, new=3)
    reasons = {problem.source: problem.reason for problem in report.problems}
    assert list(reasons) == [
        "amy/group.jpg",
        "amy/wall.png",
        "bob/cut.jpg",
        "bob/empty.jpg",
        "bob/text.jpg",
        "stray.png",
    ]
    assert reasons["amy/group.jpg"].startswith("6 faces")
    assert reasons["amy/wall.png"].startswith("No face")
    assert "cut off" in reasons["bob/cut.jpg"]
    assert "empty" in reasons["bob/empty.jpg"]
    assert "not a picture" in reasons["bob/text.jpg"]
    assert "no person's folder" in reasons["stray.png"]


def test_a_picture_that_lost_its_face_leaves_the_stores(engine: FaceEngine, stores: Stores, images: Path) -> None:
    sync_folder(engine, stores, DOMAIN, images)
    put(images / "bob/1.png", cv2.imencode(".png", np.full((200, 200, 3), 90, np.uint8))[1].tobytes())
    report = sync_folder(engine, stores, DOMAIN, images)
    same_in_both(report, removed=1, unchanged=2)
    assert [problem.source for problem in report.problems] == ["bob/1.png"]
    for store in both(stores):
        assert sorted(store.inventory(DOMAIN)) == ["amy/1.png", "amy/2.png"]


def test_a_missing_or_empty_folder_never_empties_a_domain(engine: FaceEngine, stores: Stores, images: Path) -> None:
    sync_folder(engine, stores, DOMAIN, images)
    shutil.rmtree(images)
    with pytest.raises(FolderError, match="not a folder"):
        sync_folder(engine, stores, DOMAIN, images, allow_empty=True)
    (images / "amy").mkdir(parents=True)
    with pytest.raises(FolderError, match="no picture"):
        sync_folder(engine, stores, DOMAIN, images)
    assert [store.count(DOMAIN) for store in both(stores)] == [3, 3]
    same_in_both(sync_folder(engine, stores, DOMAIN, images, allow_empty=True), removed=3)
    assert [store.count(DOMAIN) for store in both(stores)] == [0, 0]


def test_pkl_is_filled_while_the_database_is_down(engine: FaceEngine, stores: Stores, images: Path) -> None:
    with PgvectorStore(DEAD, engine.embedder_card, 10.0) as dead:
        report = sync_folder(engine, Stores(stores.pkl, dead), DOMAIN, images)
    assert report.stores["pkl"] == StoreReport(3, 0, 0, 0, "")
    assert "127.0.0.1" in report.stores["pgvector"].error
    assert not report.complete
    later = sync_folder(engine, stores, DOMAIN, images)
    assert (later.embedded, later.reused, later.stores["pgvector"].new) == (0, 3, 3)
    assert later.complete


def test_a_store_that_could_not_be_opened_is_reported(engine: FaceEngine, stores: Stores, images: Path) -> None:
    report = sync_folder(engine, Stores(stores.pkl, None, "the server does not start"), DOMAIN, images)
    assert report.stores["pgvector"].error == "the server does not start"
    assert not report.complete
    switched_off = sync_folder(engine, Stores(stores.pkl, None), DOMAIN, images)
    assert switched_off.stores.keys() == {"pkl"}
    assert switched_off.complete


def test_progress_counts_to_the_end(engine: FaceEngine, stores: Stores, images: Path) -> None:
    seen: list[tuple[int, int]] = []
    sync_folder(engine, stores, DOMAIN, images, lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_an_interrupted_sync_keeps_what_it_has_read(engine: FaceEngine, stores: Stores, images: Path) -> None:
    def interrupt(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync_folder(engine, stores, DOMAIN, images, interrupt)
    assert [store.count(DOMAIN) for store in both(stores)] == [2, 2]
    report = sync_folder(engine, stores, DOMAIN, images)
    same_in_both(report, new=1, unchanged=2)
    assert report.embedded == 1


def test_a_domain_needs_a_proper_name(engine: FaceEngine, stores: Stores, images: Path) -> None:
    with pytest.raises(InvalidName):
        sync_folder(engine, stores, "../elsewhere", images)
    assert stores.pkl.domains() == []


def test_hidden_files_and_other_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("amy/1.JPG", "amy/.2.jpg", "amy/notes.txt", "amy/deep/3.txt", ".cache/4.jpg", "faces.pkl"):
        put(tmp_path / name, b"x")
    folder = read_folder(tmp_path)
    assert list(folder.pictures) == ["amy/1.JPG"]
    assert folder.problems == ()


def test_pictures_that_are_not_read_are_reported(tmp_path: Path) -> None:
    for name in ("amy/1.jpg", "amy/2.HEIC", "amy/3.gif", "amy/old/4.jpg", "amy/older/still/5.png", "amy/.trash/6.jpg"):
        put(tmp_path / name, b"x")
    folder = read_folder(tmp_path)
    assert list(folder.pictures) == ["amy/1.jpg"]
    assert [problem.source for problem in folder.problems] == ["amy/2.HEIC", "amy/3.gif", "amy/old/", "amy/older/"]
    assert folder.problems[0].reason.startswith("HEIC is not read")
    assert not folder.may_hold("amy/old/4.jpg")


def test_names_that_a_terminal_would_obey_are_reported_in_letters_that_it_prints(tmp_path: Path) -> None:
    put(tmp_path / "new\nline/1.jpg", b"x")
    put(tmp_path / "amy/\x1b[31m red Š.jpg", b"x")
    sources = [problem.source for problem in read_folder(tmp_path).problems]
    assert sources == [r"amy/\x1b[31m red Š.jpg", r"new\nline/"]


def test_links_are_followed_inside_the_folder_only(tmp_path: Path) -> None:
    put(tmp_path / "outside/secret.jpg", b"secret")
    put(tmp_path / "images/amy/1.jpg", b"amy")
    (tmp_path / "images/amy/inside.jpg").symlink_to(tmp_path / "images/amy/1.jpg")
    (tmp_path / "images/amy/outside.jpg").symlink_to(tmp_path / "outside/secret.jpg")
    (tmp_path / "images/bob").symlink_to(tmp_path / "outside")
    folder = read_folder(tmp_path / "images")
    assert list(folder.pictures) == ["amy/1.jpg", "amy/inside.jpg"]
    assert [problem.source for problem in folder.problems] == ["amy/outside.jpg", "bob/"]


def test_names_are_kept_in_one_unicode_form(tmp_path: Path) -> None:
    name = "Zoë/ž.jpg"
    put(tmp_path / unicodedata.normalize("NFD", name), b"x")
    picture = read_folder(tmp_path).pictures[unicodedata.normalize("NFC", name)]
    assert picture.person == unicodedata.normalize("NFC", "Zoë")
