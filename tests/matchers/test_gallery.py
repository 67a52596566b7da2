from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchers.base import GalleryFace
from matchers.errors import GalleryError, StoreUnavailable, UnknownDomain
from matchers.gallery import PklStore
from matchers.records import read_gallery, write_gallery
from models.card import ModelCard

DIMENSION = 16


def card(dimension: int = DIMENSION) -> ModelCard:
    return ModelCard(
        name="toy",
        task="embedding",
        family="embedding",
        layout="NCHW",
        colour="RGB",
        mean=(0.0, 0.0, 0.0),
        scale=(1.0, 1.0, 1.0),
        input_size=(112, 112),
        dimension=dimension,
        alignment="similarity",
        licence="MIT",
        origin="none",
        origin_sha256="0" * 64,
        threshold=0.6,
    )


def unit(seed: int, count: int = 1, dimension: int = DIMENSION) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def face(person: str, picture: str, seed: int) -> GalleryFace:
    return GalleryFace(person, f"{person}/{picture}", f"{seed:040x}", unit(seed)[0], (1, 2, 30, 40))


@pytest.fixture
def store(tmp_path: Path) -> PklStore:
    return PklStore(tmp_path, card(), "retinaface")


def test_an_unknown_domain_is_empty_and_cannot_be_searched(store: PklStore) -> None:
    assert (store.domains(), store.count("d"), store.faces("d"), store.inventory("d")) == ([], 0, [], {})
    with pytest.raises(UnknownDomain):
        store.search(unit(1), "d", None, 5)


def test_the_search_is_exact_and_nearest_first(store: PklStore) -> None:
    faces = [face(f"p{i // 4}", f"{i}.jpg", i) for i in range(200)]
    store.apply("d", faces, ())
    queries = unit(999, 7)
    for query, matches in zip(queries, store.search(queries, "d", None, 10), strict=True):
        expected = sorted((1 - float(query @ f.embedding), f.source) for f in faces)[:10]
        assert [match.source for match in matches] == [source for _, source in expected]
        assert np.allclose([match.distance for match in matches], [distance for distance, _ in expected], atol=1e-6)
        assert all(match.person == match.source.split("/")[0] for match in matches)


def test_a_threshold_drops_what_is_farther_and_top_k_may_exceed_the_gallery(store: PklStore) -> None:
    faces = [face("p", f"{i}.jpg", i) for i in range(9)]
    store.apply("d", faces, ())
    (everything,) = store.search(unit(5), "d", None, 100)
    assert len(everything) == 9
    (near,) = store.search(unit(5), "d", 0.5, 100)
    assert [match.source for match in near] == [m.source for m in everything if m.distance <= 0.5]
    assert near[0].source == "p/5.jpg"
    assert near[0].distance == pytest.approx(0, abs=1e-6)


def test_equal_distances_come_in_the_order_of_their_sources(store: PklStore) -> None:
    copies = [GalleryFace("p", f"p/{name}.jpg", "", unit(1)[0], (0, 0, 1, 1)) for name in "dbeac"]
    store.apply("d", copies, ())
    (matches,) = store.search(unit(2), "d", None, 3)
    assert [match.source for match in matches] == ["p/a.jpg", "p/b.jpg", "p/c.jpg"]


def test_apply_replaces_by_source_and_removes(store: PklStore) -> None:
    store.apply("d", [face("a", "1.jpg", 1), face("a", "2.jpg", 2), face("b", "1.jpg", 3)], ())
    store.apply("d", [face("a", "1.jpg", 9)], ["a/2.jpg", "nobody/0.jpg"])
    assert store.inventory("d") == {"a/1.jpg": f"{9:040x}", "b/1.jpg": f"{3:040x}"}
    (matches,) = store.search(unit(9), "d", None, 1)
    assert matches[0].source == "a/1.jpg"


@pytest.mark.parametrize(
    "sources",
    [
        ["amy/1.jpg"],
        ["amy.jpg"],
        ["amy/d/1.jpg", "amy/d/2.jpg"],
        ["amy/d/e/1.jpg"],
        ["amy/back\\slash.jpg"],
        ["C:/amy.jpg"],
        ["amy/C:/x.jpg", "bob/1.jpg"],
        ["amy/d/e/1.jpg", "amy/f/g/2.jpg"],
        ["bob/amy/1.jpg", "cat/amy/d/2.jpg"],
    ],
)
def test_sources_stay_as_they_were_given(store: PklStore, tmp_path: Path, sources: list[str]) -> None:
    people = [source.split("/")[0].removesuffix(".jpg") for source in sources]
    faces = [GalleryFace(p, s, "", unit(1)[0], (0, 0, 1, 1)) for p, s in zip(people, sources, strict=True)]
    store.apply("amy", faces, ())
    for held in (store, PklStore(tmp_path, card(), "retinaface")):
        assert [(f.person, f.source) for f in held.faces("amy")] == list(zip(people, sources, strict=True))


@pytest.mark.parametrize(
    "wrong",
    [
        GalleryFace("bob", "amy/1.jpg", "", unit(1)[0], (0, 0, 1, 1)),
        GalleryFace("amy", "amy/\n.jpg", "", unit(1)[0], (0, 0, 1, 1)),
        GalleryFace("amy", "amy/1.jpg", "", unit(1)[0], (0, 0, 2**40, 1)),
        GalleryFace("amy", "amy/1.jpg", "", np.zeros(DIMENSION, np.float32), (0, 0, 1, 1)),
    ],
)
def test_a_face_that_would_read_otherwise_is_not_written(store: PklStore, wrong: GalleryFace) -> None:
    with pytest.raises(GalleryError, match="does not fit"):
        store.apply("d", [wrong], ())
    assert store.domains() == []


def test_embeddings_of_another_shape_are_an_error(store: PklStore) -> None:
    store.apply("d", [face("a", "1.jpg", 1)], ())
    with pytest.raises(GalleryError, match="shape"):
        store.search(unit(1, dimension=DIMENSION + 1), "d", None, 1)


def test_equal_faces_tie_exactly_wherever_they_stand(store: PklStore) -> None:
    twins = [GalleryFace("p", f"p/{i:03}.jpg", "", unit(1)[0], (0, 0, 1, 1)) for i in range(0, 300, 7)]
    store.apply("d", [*twins, *(face("q", f"{i}.jpg", i + 10) for i in range(200))], ())
    for query in unit(3, 50):
        (matches,) = store.search(query[None], "d", None, 1000)
        found = [match for match in matches if match.person == "p"]
        assert len({match.distance for match in found}) == 1
        assert [match.source for match in found] == [twin.source for twin in twins]


def test_dropping_a_domain_leaves_what_is_not_its_gallery(store: PklStore, tmp_path: Path) -> None:
    store.apply("d", [face("a", "1.jpg", 1)], ())
    other = PklStore(tmp_path, card(), "yunet")
    other.apply("d", [face("b", "1.jpg", 2)], ())
    store.drop("d")
    assert (store.domains(), other.domains()) == ([], ["d"])
    other.drop("d")
    assert not (tmp_path / "d").exists()


def test_what_a_killed_writer_left_is_cleared_away(store: PklStore) -> None:
    store.apply("d", [face("a", "1.jpg", 1)], ())
    left = store.path("d").with_name(f".{store.path('d').name}.x1y2.part")
    left.write_bytes(b"half")
    store.apply("d", [face("a", "2.jpg", 2)], ())
    assert list(store.path("d").parent.iterdir()) == [store.path("d")]


def test_searches_go_on_while_a_new_gallery_is_read(store: PklStore, tmp_path: Path) -> None:
    store.apply("d", [face("a", "1.jpg", 1)], ())
    store.search(unit(1), "d", None, 1)
    path = tmp_path / "big.pkl"
    rows = unit(5, 20_000)
    write_gallery(path, [GalleryFace("b", f"b/{i}.jpg", "", row, (0, 0, 1, 1)) for i, row in enumerate(rows)])
    path.replace(store.path("d"))
    time.sleep(0.25)
    reader = threading.Thread(target=store.count, args=("d",))
    reader.start()
    during = 0
    while reader.is_alive():
        during += store.search(unit(1), "d", None, 1)[0][0].person == "a"
    reader.join()
    assert during > 1
    assert store.count("d") == 20_000


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"a file where the folder should be")
    store = PklStore(tmp_path / "root", card(), "retinaface")
    assert store.domains() == []
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        store.apply("d", [face("a", "1.jpg", 1)], ())


def test_two_faces_of_one_picture_stay_two(store: PklStore) -> None:
    pair = [GalleryFace("a", "a/g.jpg", "", unit(i)[0], (i, 0, 5, 5)) for i in (1, 2)]
    store.apply("d", pair, ())
    assert store.count("d") == 2
    store.apply("d", [], ["a/g.jpg"])
    assert (store.count("d"), store.domains()) == (0, ["d"])
    assert store.search(unit(1), "d", None, 3) == [[]]


def test_domains_are_apart_and_can_be_dropped(store: PklStore) -> None:
    store.apply("one", [face("a", "1.jpg", 1)], ())
    store.apply("two", [face("b", "1.jpg", 2)], ())
    assert store.domains() == ["one", "two"]
    store.drop("one")
    store.drop("never")
    assert store.domains() == ["two"]
    with pytest.raises(UnknownDomain):
        store.search(unit(1), "one", None, 1)


@pytest.mark.parametrize("vector", [np.zeros(DIMENSION + 1, np.float32), np.full(DIMENSION, np.nan, np.float32)])
def test_a_face_that_does_not_fit_changes_nothing(store: PklStore, vector: np.ndarray) -> None:
    store.apply("d", [face("a", "1.jpg", 1)], ())
    with pytest.raises(GalleryError, match="does not fit"):
        store.apply("d", [GalleryFace("a", "a/2.jpg", "", vector, (0, 0, 1, 1))], ["a/1.jpg"])
    assert list(store.inventory("d")) == ["a/1.jpg"]


def test_a_gallery_of_another_model_is_refused_with_what_to_do(store: PklStore, tmp_path: Path) -> None:
    store.apply("d", [face("a", "1.jpg", 1)], ())
    other = PklStore(tmp_path, card(32), "retinaface")
    with pytest.raises(GalleryError, match="EMBEDDER"):
        other.search(unit(1, dimension=32), "d", None, 1)


def test_a_change_by_another_process_is_seen(store: PklStore, tmp_path: Path) -> None:
    store.apply("d", [face("a", "1.jpg", 1)], ())
    assert store.search(unit(2), "d", None, 1)[0][0].person == "a"
    PklStore(tmp_path, card(), "retinaface").apply("d", [face("b", "1.jpg", 2)], ())
    deadline = time.monotonic() + 20
    while store.search(unit(2), "d", None, 1)[0][0].person != "b":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_corrupt_replacement_leaves_the_last_gallery_in_service(
    store: PklStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.apply("d", [face("a", "1.jpg", 1)], ())
    store.search(unit(1), "d", None, 1)
    good = store.path("d").read_bytes()
    store.path("d").write_bytes(good[: len(good) // 2])
    time.sleep(0.3)
    assert store.search(unit(1), "d", None, 1)[0][0].person == "a"
    assert "left alone" in caplog.text
    assert store.path("d").name in caplog.text
    with pytest.raises(GalleryError):
        store.apply("d", [face("b", "1.jpg", 2)], ())
    store.path("d").write_bytes(good)
    store.apply("d", [face("b", "1.jpg", 2)], ())
    assert store.count("d") == 2


def test_writers_in_four_processes_lose_nothing(tmp_path: Path) -> None:
    def write(worker: int) -> None:
        own = PklStore(tmp_path, card(), "retinaface")
        for index in range(12):
            own.apply("d", [face(f"w{worker}", f"{index}.jpg", 100 * worker + index)], ())

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write, args=(worker,)) for worker in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert PklStore(tmp_path, card(), "retinaface").count("d") == 48


def test_threads_search_while_the_gallery_changes(store: PklStore) -> None:
    store.apply("d", [face("a", "0.jpg", 0)], ())
    stop = threading.Event()
    failures: list[BaseException] = []

    def search() -> None:
        while not stop.is_set():
            try:
                (matches,) = store.search(unit(0), "d", None, 50)
                assert matches[0].source == "a/0.jpg"
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for index in range(1, 40):
        store.apply("d", [face("a", f"{index}.jpg", index)], ())
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_process_killed_while_it_writes_leaves_a_whole_gallery(tmp_path: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        import numpy as np
        from matchers.base import GalleryFace
        from matchers.records import write_gallery
        rows = np.random.default_rng(0).normal(size=(3000, 128)).astype(np.float32)
        faces = [GalleryFace("p", f"p/{i}.jpg", "", row, (0, 0, 1, 1)) for i, row in enumerate(rows)]
        write_gallery(Path(sys.argv[1]), faces)
        print("ready", flush=True)
        while True:
            write_gallery(Path(sys.argv[1]), faces)
    """
    path = tmp_path / "gallery.pkl"
    for round_ in range(6):
        command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.013 * (round_ + 1))
            process.kill()
        assert len(read_gallery(path).faces) == 3000


def test_a_full_disk_leaves_the_old_gallery(tmp_path: Path) -> None:
    path = tmp_path / "gallery.pkl"
    write_gallery(path, [face("a", "1.jpg", 1)])
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        try:
            write_gallery(path, [face("a", f"{i}.jpg", i) for i in range(500)])
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert [entry.name for entry in tmp_path.iterdir()] == ["gallery.pkl"]
    assert len(read_gallery(path).faces) == 1


def test_what_is_written_is_what_deepface_reads(store: PklStore) -> None:
    store.apply("d", [face("amy", "1.jpg", 1), face("bob", "2.jpg", 2)], ())
    assert store.path("d").name == "ds_model_toy_detector_retinaface_aligned_normalization_base_expand_0.pkl"
    records = pickle.loads(store.path("d").read_bytes())
    assert [record["identity"] for record in records] == ["amy/1.jpg", "bob/2.jpg"]
    first = records[0]
    assert list(first) == ["identity", "hash", "embedding", "target_x", "target_y", "target_w", "target_h"]
    assert {type(value) for value in first["embedding"]} == {float}
    assert np.array_equal(np.array(first["embedding"], np.float32), unit(1)[0])
    assert (first["target_x"], first["target_h"]) == (1, 40)


@pytest.mark.parametrize(
    ("identities", "sources"),
    [
        (["/srv/db/amy/1.jpg", "/srv/db/bob/2.jpg"], ["amy/1.jpg", "bob/2.jpg"]),
        (["C:\\db\\amy\\1.jpg", "C:\\db\\bob\\2.jpg"], ["amy/1.jpg", "bob/2.jpg"]),
        (["db/amy/1.jpg", "db/amy/2.jpg"], ["amy/1.jpg", "amy/2.jpg"]),
        (["/srv/db/amy.jpg", "/srv/db/bob/2.jpg"], ["amy.jpg", "bob/2.jpg"]),
        (["amy/1.jpg", "amy/2.jpg"], ["amy/1.jpg", "amy/2.jpg"]),
        (["/srv/people/amy/1.jpg", "/srv/people/amy/2.jpg"], ["amy/1.jpg", "amy/2.jpg"]),
        (["/srv/people/amy.jpg", "/srv/people/bob.jpg"], ["amy.jpg", "bob.jpg"]),
        (["C:\\x\\people\\amy.jpg"], ["amy.jpg"]),
        (["C:\\amy.jpg", "C:\\bob\\1.jpg"], ["amy.jpg", "bob/1.jpg"]),
        (["/amy.jpg", "/bob.jpg"], ["amy.jpg", "bob.jpg"]),
        (["../pictures/amy/1.jpg", "../pictures/bob/1.jpg"], ["amy/1.jpg", "bob/1.jpg"]),
        (["./faces/amy/1.jpg", "./faces/bob/1.jpg"], ["amy/1.jpg", "bob/1.jpg"]),
        (["./amy/1.jpg", "./bob/1.jpg"], ["amy/1.jpg", "bob/1.jpg"]),
        (["././amy/old/1.jpg", "././amy/old/2.jpg"], ["amy/old/1.jpg", "amy/old/2.jpg"]),
        (["/srv/db/amy/1.jpg", "/srv/db/bob/old/2.jpg"], ["amy/1.jpg", "bob/old/2.jpg"]),
        (["amy/old/1.jpg", "bob/new/2.jpg"], ["amy/old/1.jpg", "bob/new/2.jpg"]),
        (["/data/a/amy/1.jpg", "/srv/b/bob/2.jpg"], ["amy/1.jpg", "bob/2.jpg"]),
        (["/data/a/amy/1.jpg", "/data/b/bob/2.jpg"], ["amy/1.jpg", "bob/2.jpg"]),
        (["amy/1.jpg", "/srv/faces/bob/2.jpg"], ["amy/1.jpg", "bob/2.jpg"]),
        (["C:\\a\\amy\\1.jpg", "D:\\b\\c\\bob\\2.jpg"], ["amy/1.jpg", "bob/2.jpg"]),
        (["/old/people/amy/1.jpg", "/new/x/people/bob/old/2.jpg"], ["amy/1.jpg", "bob/old/2.jpg"]),
        (["/old/people/people/1.jpg", "/new/people/amy/2.jpg"], ["people/1.jpg", "amy/2.jpg"]),
    ],
)
def test_galleries_that_moved_keep_their_people(tmp_path: Path, identities: list[str], sources: list[str]) -> None:
    path = tmp_path / "people" / "gallery.pkl"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps([{"identity": i, "embedding": [0.6, 0.8]} for i in identities]))
    faces = read_gallery(path).faces
    assert [f.source for f in faces] == sources
    assert [f.person for f in faces] == [s.split("/")[0].removesuffix(".jpg") for s in sources]


def test_pictures_without_a_face_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "gallery.pkl"
    path.write_bytes(pickle.dumps([["a/1.jpg", [3.0, 4.0]], ["a/2.jpg", None], ["a/3.jpg", []]]))
    gallery = read_gallery(path)
    assert gallery.empty == ("a/2.jpg", "a/3.jpg")
    assert np.allclose(gallery.faces[0].embedding, [0.6, 0.8])


@settings(max_examples=50)
@given(
    seeds=st.lists(st.integers(0, 2**31), max_size=8, unique=True),
    person=st.sampled_from(["amy", "Đorđe", "O'Neil", "陳"]),
    box=st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 4),
)
def test_faces_survive_writing_and_reading(
    seeds: list[int], person: str, box: tuple[int, int, int, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("round")
    faces = [GalleryFace(person, f"{person}/{seed}.jpg", f"{seed:x}", unit(seed)[0], box) for seed in seeds]
    write_gallery(folder / "g.pkl", faces)
    read = read_gallery(folder / "g.pkl").faces
    assert [(f.person, f.source, f.digest, f.box) for f in read] == [
        (f.person, f.source, f.digest, f.box) for f in faces
    ]
    for ours, theirs in zip(read, faces, strict=True):
        assert np.abs(ours.embedding - theirs.embedding).max() < 1e-7
    shutil.rmtree(folder)
