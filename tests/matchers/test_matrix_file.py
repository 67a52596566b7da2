from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from matchers import matrix_file
from matchers.base import FloatArray, GalleryFace
from matchers.gallery import PklStore
from matchers.matrix_file import matrix_path, open_matrix
from matchers.records import write_gallery
from models.card import ModelCard

Faces = Callable[..., list[GalleryFace]]
Unit = Callable[..., FloatArray]

FEW = 20


@pytest.fixture
def store(tmp_path: Path, embedder_card: ModelCard) -> PklStore:
    """A store that maps galleries of twenty faces."""
    return PklStore(tmp_path, embedder_card, "retinaface", FEW)


@pytest.fixture
def again(tmp_path: Path, embedder_card: ModelCard) -> Callable[[], PklStore]:
    """What another process would see."""
    return lambda: PklStore(tmp_path, embedder_card, "retinaface", FEW)


def held(store: PklStore) -> list[tuple[object, ...]]:
    return [(f.person, f.source, f.digest, f.box, f.embedding.tobytes()) for f in store.faces("d")]


def same(store: PklStore, expected: list[GalleryFace]) -> bool:
    """Whether the store holds these faces; reading a pickle scales embeddings anew, which may change last digits."""
    found = store.faces("d")
    return [(f.person, f.source, f.digest, f.box) for f in found] == [
        (f.person, f.source, f.digest, f.box) for f in expected
    ] and all(np.allclose(f.embedding, e.embedding, atol=1e-6) for f, e in zip(found, expected, strict=True))


def matrix(store: PklStore) -> Path:
    return matrix_path(store.path("d"))


def test_a_gallery_is_the_same_from_its_matrix(store: PklStore, again: Callable[[], PklStore], faces: Faces) -> None:
    written = sorted([*faces(90), *faces(3, prefix="Đ陳-", seed=1)], key=lambda face: face.source)
    store.apply("d", written, ())
    expected = [(f.person, f.source, f.digest, f.box, f.embedding.tobytes()) for f in written]
    assert held(store) == expected
    assert held(again()) == expected
    assert open_matrix(store.path("d")) is not None
    assert matrix(store).stat().st_mode & 0o777 == 0o600


def test_the_pickle_is_not_read_again(
    store: PklStore, again: Callable[[], PklStore], faces: Faces, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.apply("d", faces(90), ())
    answers = store.search(unit(3, seed=5), "d", None, 7)
    monkeypatch.setattr("matchers.gallery.read_gallery", lambda _: pytest.fail("the .pkl was read"))
    assert again().search(unit(3, seed=5), "d", None, 7) == answers


def test_a_gallery_of_somebody_else_gets_a_matrix_when_it_is_read(
    store: PklStore, again: Callable[[], PklStore], faces: Faces
) -> None:
    store.path("d").parent.mkdir()
    write_gallery(store.path("d"), faces(4 * FEW))
    assert store.count("d") == 4 * FEW
    assert open_matrix(store.path("d")) is not None
    assert held(again()) == held(store)


def test_small_galleries_have_none(store: PklStore, faces: Faces) -> None:
    store.apply("d", faces(FEW - 1), ())
    assert not matrix(store).exists()
    store.apply("d", faces(3, prefix="more-"), ())
    assert matrix(store).exists()
    store.apply("d", (), [face.source for face in faces(9)])
    assert list(store.path("d").parent.iterdir()) == [store.path("d")]


def test_changes_are_merged_in_order(store: PklStore, again: Callable[[], PklStore], faces: Faces) -> None:
    store.apply("d", faces(60, prefix="b"), ())
    kept = {face.source: face for face in faces(60, prefix="b")}
    for step, (added, gone) in enumerate(
        [
            (faces(5, prefix="a", seed=1), ["bp3/1.jpg", "bp19/2.jpg", "nobody/1.jpg"]),
            (faces(7, prefix="c", seed=2), []),
            (faces(7, prefix="b", seed=3), ["ap0/0.jpg"]),
            ([], [face.source for face in faces(30, prefix="b")]),
        ]
    ):
        store.apply("d", added, gone)
        kept = {source: face for source, face in kept.items() if source not in gone}
        kept.update((face.source, face) for face in added)
        expected = [(s, kept[s].digest, kept[s].box, kept[s].embedding.tobytes()) for s in sorted(kept)]
        for each in (store, again()):
            assert [(f.source, f.digest, f.box, f.embedding.tobytes()) for f in each.faces("d")] == expected, step
    records = pickle.loads(store.path("d").read_bytes())
    assert [record["identity"] for record in records] == sorted(kept)


def test_deleted_people_are_in_no_file(store: PklStore, faces: Faces) -> None:
    store.apply("d", [*faces(60), *faces(3, prefix="gone-", seed=8)], ())
    row = faces(3, prefix="gone-", seed=8)[0].embedding.tobytes()
    assert b"gone-p0" in matrix(store).read_bytes()
    assert row in matrix(store).read_bytes()
    store.apply("d", (), [face.source for face in faces(3, prefix="gone-")])
    for path in store.path("d").parent.iterdir():
        assert b"gone-p0" not in path.read_bytes()
        assert row not in path.read_bytes()


def test_a_dropped_domain_leaves_no_matrix(store: PklStore, faces: Faces) -> None:
    store.apply("d", faces(60), ())
    store.drop("d")
    assert not store.path("d").parent.exists()


def test_a_matrix_of_another_gallery_is_left_alone(
    store: PklStore, again: Callable[[], PklStore], faces: Faces, tmp_path: Path
) -> None:
    store.apply("d", faces(60), ())
    old = matrix(store).read_bytes()
    stamp = store.path("d").stat()
    other = tmp_path / "other.pkl"
    write_gallery(other, faces(60, seed=4))
    assert other.stat().st_size == stamp.st_size
    other.replace(store.path("d"))
    os.utime(store.path("d"), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    matrix(store).write_bytes(old)
    assert same(again(), sorted(faces(60, seed=4), key=lambda face: face.source))
    assert faces(60)[0].embedding.tobytes() not in matrix(store).read_bytes()


def test_any_damaged_byte_is_noticed(
    store: PklStore, again: Callable[[], PklStore], faces: Faces, caplog: pytest.LogCaptureFixture
) -> None:
    store.apply("d", faces(60), ())
    good, expected = matrix(store).read_bytes(), store.faces("d")
    holding = np.flatnonzero(np.frombuffer(good, np.uint8))
    for position in np.random.default_rng(0).choice(holding, 60):
        damaged = bytearray(good)
        damaged[position] ^= 0x10
        matrix(store).write_bytes(damaged)
        caplog.clear()
        assert same(again(), expected)
        assert "is left alone" in caplog.text
        assert matrix(store).stat().st_size == len(good)
        assert open_matrix(store.path("d")) is not None


@pytest.mark.parametrize("length", [0, 100, 4096, 9000, -4096, -1])
def test_a_matrix_that_was_cut_off_is_noticed(
    store: PklStore, again: Callable[[], PklStore], faces: Faces, length: int
) -> None:
    store.apply("d", faces(60), ())
    expected, good = store.faces("d"), matrix(store).read_bytes()
    matrix(store).unlink()
    matrix(store).write_bytes(good[:length])
    assert same(again(), expected)
    assert matrix(store).stat().st_size == len(good)


def test_a_matrix_that_others_may_write_is_left_alone(
    store: PklStore, faces: Faces, caplog: pytest.LogCaptureFixture
) -> None:
    store.apply("d", faces(60), ())
    matrix(store).chmod(0o666)
    assert open_matrix(store.path("d")) is None
    assert "somebody else" in caplog.text
    matrix(store).chmod(0o600)
    moved = matrix(store).rename(matrix(store).with_name("elsewhere"))
    matrix(store).symlink_to(moved)
    assert open_matrix(store.path("d")) is None


def test_without_room_for_a_matrix_the_gallery_is_kept_in_memory(
    store: PklStore, again: Callable[[], PklStore], faces: Faces, tmp_path: Path
) -> None:
    pid = os.fork()
    if pid == 0:
        store.path("d").parent.mkdir()
        write_gallery(store.path("d"), faces(60))
        size = store.path("d").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 3, size // 3))
        os._exit(7 if again().count("d") == 60 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert list(store.path("d").parent.iterdir()) == [store.path("d")]


def test_a_folder_that_cannot_be_written_serves_all_the_same(
    store: PklStore, again: Callable[[], PklStore], faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.apply("d", faces(60), ())
    matrix(store).unlink()
    shutil.rmtree(store.root / ".d.lock", ignore_errors=True)
    (store.root / ".d.lock").unlink(missing_ok=True)
    (store.root / ".d.lock").mkdir()
    assert again().count("d") == 60
    assert not matrix(store).exists()


def test_processes_that_start_together_read_the_pickle_once(
    store: PklStore, again: Callable[[], PklStore], faces: Faces, tmp_path: Path
) -> None:
    store.path("d").parent.mkdir()
    write_gallery(store.path("d"), faces(3000))
    reads = tmp_path / "reads"

    def start(barrier: object) -> None:
        read = matrix_file.write_matrix

        def counted(*arguments: object) -> None:
            with reads.open("a") as file:
                file.write("x")
            read(*arguments)  # type: ignore[arg-type]

        own = again()
        import matchers.gallery

        matchers.gallery.write_matrix = counted
        barrier.wait(30)  # type: ignore[attr-defined]
        assert own.count("d") == 3000

    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    processes = [context.Process(target=start, args=(barrier,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert reads.read_text() == "x"


def test_a_mapped_gallery_serves_on_while_it_is_replaced(store: PklStore, faces: Faces, unit: Unit) -> None:
    store.apply("d", faces(60), ())
    before = store.faces("d")
    kept = [face.embedding.copy() for face in before]
    store.apply("d", faces(60, seed=2), ())
    store.drop("d")
    assert all(np.array_equal(face.embedding, row) for face, row in zip(before, kept, strict=True))


def test_stale_files_say_nothing_in_the_log(
    store: PklStore, again: Callable[[], PklStore], faces: Faces, caplog: pytest.LogCaptureFixture
) -> None:
    store.apply("d", faces(60), ())
    os.utime(store.path("d"))
    with caplog.at_level(logging.WARNING):
        assert again().count("d") == 60
    assert caplog.text == ""
