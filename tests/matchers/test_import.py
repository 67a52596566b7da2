"""Galleries of DeepFace brought into both stores and handed back."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny import make_card, unit_rows

from matchers.__main__ import main
from matchers.differences import compare_faces
from matchers.errors import GalleryFileError, GalleryMismatch
from matchers.gallery import PklStore
from matchers.gallery_names import GalleryName, check_name, deepface_file, parse_name
from matchers.importing import GalleryFile, ImportReport, import_gallery
from matchers.journal import pending, recover
from matchers.pgvector import PgvectorStore
from matchers.records import read_gallery
from matchers.service import Stores
from models.card import METADATA_KEY, ModelCard

NAME = "ds_model_arcface_detector_opencv_aligned_normalization_base_expand_0.pkl"
DIMENSION = 512
CARD = replace(make_card("arcface", DIMENSION), alignment="deepface", origin="arcface_weights.h5", scale=(1 / 255,) * 3)
DEAD = "host=127.0.0.1 port=1 user=nobody dbname=nothing"


@pytest.fixture
def pkl(tmp_path: Path) -> PklStore:
    return PklStore(tmp_path / "galleries", CARD, "haar")


@pytest.fixture
def stores(pkl: PklStore, database: str) -> Iterator[Stores]:
    with PgvectorStore(database, CARD, 10.0) as pgvector:
        yield Stores(pkl, pgvector)


def silent(_text: str) -> Callable[[int, int], None]:
    return lambda _done, _total: None


def records(count: int = 6, seed: int = 0, prefix: str = "/srv/faces") -> list[dict[str, Any]]:
    rows = unit_rows(count, DIMENSION, seed) * 7
    return [
        {
            "identity": f"{prefix}/p{number // 2}/{number % 2}.jpg",
            "hash": f"{number:040x}",
            "embedding": row.tolist(),
            "target_x": number,
            "target_y": 2,
            "target_w": 30,
            "target_h": 40,
        }
        for number, row in enumerate(rows)
    ]


def written(folder: Path, value: object, name: str = NAME) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(pickle.dumps(value))
    return path


def brought(stores: Stores, path: Path, **options: Any) -> ImportReport:
    with path.open("rb") as file:
        return import_gallery(stores, CARD, "haar", "office", GalleryFile(file, path.name), stage=silent, **options)


def content(store: Any) -> list[tuple[str, str, str, tuple[int, ...], bytes]]:
    return [(f.person, f.source, f.digest, f.box, f.embedding.tobytes()) for f in store.faces("office")]


def test_a_gallery_fills_both_stores_and_again_changes_nothing(stores: Stores, tmp_path: Path) -> None:
    path = written(tmp_path / "faces", records())
    report = brought(stores, path)
    assert (report.faces, report.people, report.complete, report.warnings) == (6, 3, True, ())
    assert {name: (one.new, one.changed, one.unchanged) for name, one in report.stores.items()} == {
        "pkl": (6, 0, 0),
        "pgvector": (6, 0, 0),
    }
    held = content(stores.pkl)
    assert content(stores.pgvector) == held
    assert stores.pkl.path("office").name == NAME
    stamp = stores.pkl.path("office").stat().st_mtime_ns
    again = brought(stores, path)
    assert {name: (one.new, one.changed, one.unchanged) for name, one in again.stores.items()} == {
        "pkl": (0, 0, 6),
        "pgvector": (0, 0, 6),
    }
    assert stores.pkl.path("office").stat().st_mtime_ns == stamp
    assert pending(stores) == {}


def test_a_moved_and_changed_gallery_replaces_what_changed_and_keeps_what_only_the_stores_have(
    stores: Stores, tmp_path: Path
) -> None:
    brought(stores, written(tmp_path / "faces", records()))
    moved = records(4, prefix="D:\\new\\faces")
    moved[1]["embedding"] = unit_rows(1, DIMENSION, 99)[0].tolist()
    report = brought(stores, written(tmp_path / "moved", moved))
    assert {name: (one.new, one.changed, one.unchanged) for name, one in report.stores.items()} == {
        "pkl": (0, 1, 3),
        "pgvector": (0, 1, 3),
    }
    assert stores.pkl.count("office") == 6
    assert content(stores.pgvector) == content(stores.pkl)
    np.testing.assert_allclose(stores.pkl.faces("office", "p0")[1].embedding, moved[1]["embedding"], atol=1e-6)


def test_a_trial_run_counts_and_writes_nothing(stores: Stores, tmp_path: Path) -> None:
    report = brought(stores, written(tmp_path / "faces", records()), dry_run=True)
    assert (report.stores["pkl"].new, report.stores["pgvector"].new) == (6, 6)
    assert stores.pkl.domains() == [] and not stores.journal.exists()


def test_pgvector_that_is_down_gets_the_gallery_later(pkl: PklStore, stores: Stores, tmp_path: Path) -> None:
    path = written(tmp_path / "faces", records())
    with PgvectorStore(DEAD, CARD, 10.0) as dead:
        report = brought(Stores(pkl, dead), path)
    assert not report.complete
    assert (report.stores["pkl"].new, report.stores["pkl"].error) == (6, "")
    assert "cannot answer" in report.stores["pgvector"].error
    assert pending(stores) == {"office": 1}
    assert recover(stores) == {}
    assert content(stores.pgvector) == content(stores.pkl)
    assert len(content(stores.pkl)) == 6


def test_what_cannot_be_used_is_listed(stores: Stores, tmp_path: Path) -> None:
    value = records()
    value[0]["embedding"] = None
    value[1]["embedding"] = [float("inf")] * DIMENSION
    report = brought(stores, written(tmp_path / "faces", [*value, records()[5]]))
    assert [(one.source, one.reason) for one in report.skipped] == [
        ("/srv/faces/p0/0.jpg", "DeepFace found no face in it."),
        ("/srv/faces/p0/1.jpg", "Its embedding is not made of finite numbers, some of them not 0."),
    ]
    assert (report.faces, report.copies, stores.pkl.count("office")) == (4, 1, 4)


def test_one_folder_with_all_pictures_is_pointed_out(stores: Stores, tmp_path: Path) -> None:
    value = [record | {"identity": f"/srv/faces/{number}.jpg"} for number, record in enumerate(records())]
    path = written(tmp_path / "x", value)
    report = brought(stores, path, dry_run=True)
    assert (report.people, len(report.warnings)) == (1, 1)
    assert "one person, 'faces'" in report.warnings[0]
    named = brought(stores, path, roots=["/srv/faces"], dry_run=True)
    assert (named.people, named.warnings) == (6, ())


def at(*identities: str) -> list[dict[str, Any]]:
    return [
        record | {"identity": identity} for record, identity in zip(records(len(identities)), identities, strict=True)
    ]


def test_a_gallery_of_two_root_folders_keeps_its_people_and_says_so(stores: Stores, tmp_path: Path) -> None:
    path = written(tmp_path / "x", at("/data/a/amy/1.jpg", "/data/a/bob/1.jpg", "/srv/b/amy/1.jpg", "/srv/b/cat/1.jpg"))
    report = brought(stores, path)
    assert (report.faces, report.people, report.complete, report.skipped) == (4, 3, True, ())
    assert [(person, source) for person, source, *_ in content(stores.pkl)] == [
        ("amy", "amy/1.jpg"), ("amy", "amy/srv/b/1.jpg"), ("bob", "bob/1.jpg"), ("cat", "cat/1.jpg"),
    ]  # fmt: skip
    assert content(stores.pgvector) == content(stores.pkl)
    (warning,) = report.warnings
    assert "2 root folders: 'data/a', 'srv/b'." in warning
    assert brought(stores, path, roots=["/data/a", "/srv/b"]).warnings == ()
    assert len(content(stores.pkl)) == 4
    grouped = brought(stores, path, roots=["/data", "/srv"], dry_run=True)
    assert (grouped.people, grouped.warnings) == (2, ())


def test_pictures_of_a_gallery_that_moved_are_not_held_twice(stores: Stores, tmp_path: Path) -> None:
    value = at("/old/faces/amy/1.jpg", "/old/faces/bob/1.jpg", "/new/faces/amy/1.jpg", "/new/faces/bob/1.jpg")
    value[2] |= {"embedding": list(value[0]["embedding"]), "target_x": value[0]["target_x"]}
    report = brought(stores, written(tmp_path / "x", value))
    assert (report.faces, report.copies, report.skipped) == (3, 1, ())
    assert [source for _, source, *_ in content(stores.pkl)] == ["amy/1.jpg", "bob/1.jpg", "bob/new/faces/1.jpg"]


def test_deeper_folders_are_pointed_out(stores: Stores, tmp_path: Path) -> None:
    for value in (at("/x/amy/1.jpg", "/x/bob/old/1.jpg"), at("amy/1.jpg", "more/bob/1.jpg")):
        report = brought(stores, written(tmp_path / "x", value), dry_run=True)
        (warning,) = report.warnings
        assert "deeper folders (faces: 1)" in warning and "/1.jpg'" in warning, warning
    assert brought(stores, written(tmp_path / "x", value), roots=[".", "more"], dry_run=True).warnings == ()


def test_another_dimension_is_refused_whatever_the_name_says(stores: Stores, tmp_path: Path) -> None:
    short = [record | {"embedding": record["embedding"][:128]} for record in records()]
    for name in (NAME, "gallery.pkl"):
        with pytest.raises(GalleryMismatch, match=r"128 numbers.*512.*EMBEDDER"):
            brought(stores, written(tmp_path / "faces", short, name), accept=("model",))
    assert stores.pkl.domains() == []


def test_a_file_without_faces_is_refused(stores: Stores, tmp_path: Path) -> None:
    for value in ([], [record | {"embedding": None} for record in records()]):
        with pytest.raises(GalleryFileError, match="no face"):
            brought(stores, written(tmp_path / "faces", value))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (NAME, GalleryName("arcface", "opencv", "aligned", "base", "0")),
        (
            "ds_model_vggface_detector_yolov8n_unaligned_normalization_vggface2_expand_10.parquet",
            GalleryName("vggface", "yolov8n", "unaligned", "vggface2", "10"),
        ),
        ("ds_model_buffalo_l_detector_skip_aligned_normalization_base_expand_0.npz",
         GalleryName("buffalo_l", "skip", "aligned", "base", "0")),
        ("ds_arcface_retinaface_v2.pkl", GalleryName("arcface", "retinaface")),
        ("representations_vgg_face.pkl", GalleryName("vgg_face")),
        ("gallery.pkl", GalleryName()),
    ],
)  # fmt: skip
def test_the_file_name_tells_how_a_gallery_was_made(file: str, name: GalleryName) -> None:
    assert parse_name(file) == name


INSIGHTFACE = replace(CARD, alignment="similarity", origin="w600k_r50.onnx")


@pytest.mark.parametrize(
    ("file", "card", "detector", "traits"),
    [
        (NAME, CARD, "haar", ()),
        (NAME, replace(CARD, name="my-own"), "haar", ()),
        (NAME, INSIGHTFACE, "haar", ("model",)),
        (NAME, CARD, "retinaface", ("detector",)),
        (NAME.replace("opencv", "retinaface"), CARD, "retinaface-r50", ()),
        (NAME.replace("arcface", "facenet512"), CARD, "haar", ("model",)),
        (NAME.replace("arcface", "facenet"), make_card("mobilefacenet", 128), "haar", ("model",)),
        (NAME.replace("aligned", "unaligned"), CARD, "haar", ("alignment",)),
        (NAME.replace("base", "arcface"), CARD, "haar", ("normalisation",)),
        (NAME.replace("base", "arcface"), replace(CARD, mean=(127.5,) * 3), "haar", ()),
        (NAME.replace("expand_0", "expand_5"), CARD, "haar", ("expansion",)),
        (NAME.replace("arcface", "vggface").replace("opencv", "mtcnn"), CARD, "haar", ("model", "detector")),
        ("representations_arcface.pkl", CARD, "haar", ()),
    ],
)
def test_what_differs_is_refused_unless_it_is_accepted(
    file: str, card: ModelCard, detector: str, traits: tuple[str, ...]
) -> None:
    name = parse_name(file)
    if traits:
        with pytest.raises(GalleryMismatch) as refusal:
            check_name(name, card, detector)
        assert refusal.value.traits == traits
    told = check_name(name, card, detector, traits)
    assert sum("It was accepted." in text for text in told) == len(traits)


def test_names_that_tell_little_are_pointed_out() -> None:
    (told,) = check_name(parse_name("gallery.pkl"), CARD, "haar")
    assert "does not tell which model" in told
    (told,) = check_name(parse_name("representations_arcface.pkl"), CARD, "haar")
    assert "detector" in told
    (told,) = check_name(parse_name(NAME.replace("arcface", "sface")), make_card("sface", 128), "haar")
    assert "five points" in told


def test_deepface_finds_what_is_written_for_it() -> None:
    assert deepface_file(replace(CARD, name="my-own"), "haar", ".pkl") == NAME
    assert deepface_file(CARD, "retinaface-r50", ".npz") == NAME.replace("opencv", "retinaface").replace("pkl", "npz")


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    tmp_path: Path, database: str, plain_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Run:
    """Run one command in this process, with a model file that is nothing but its card: exit status, stdout, stderr."""
    model = helper.make_model(
        helper.make_graph([], "nothing", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, DIMENSION])])
    )
    helper.set_model_props(model, {METADATA_KEY: CARD.to_json()})
    onnx.save(model, tmp_path / "arcface.onnx")
    for name in os.environ.keys() - plain_environment.keys():
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    settings = {"DATA_DIR": "data", "DATABASE_URL": database, "EMBEDDER": str(tmp_path / "arcface.onnx")}
    for name, value in {**settings, "DETECTOR": "haar"}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_a_gallery_goes_in_and_comes_out_as_deepface_wants_it(run: Run, tmp_path: Path) -> None:
    pictures = tmp_path / "faces"
    for person in ("p0", "p1", "p2"):
        (pictures / person).mkdir(parents=True)
    value = records(prefix=str(pictures))
    for record in value:
        picture = Path(record["identity"])
        picture.write_bytes(picture.name.encode())
        status = picture.stat()
        record["hash"] = deepface_hash(status)
    path = written(pictures, value)
    status, out, _ = run("import", "--domain", "office", path, "--json")
    report = json.loads(out)
    assert (status, report["faces"], report["complete"], report["warnings"]) == (0, 6, True, [])
    assert report["made_with"]["detector"] == "opencv"
    status, out, _ = run("status", "--json")
    (domain,) = json.loads(out)["domains"]
    assert domain["pkl"] == domain["pgvector"] == {"faces": 6, "pictures": 6, "people": 3}
    assert not any(domain["differences"].values())

    status, _, err = run("export", "--domain", "office", pictures)
    assert (status, "--overwrite" in err) == (2, True)
    (pictures / "p2" / "1.jpg").unlink()
    status, out, _ = run("export", "--domain", "office", pictures, "--overwrite", "--json")
    assert status == 0
    assert {name: json.loads(out)[name] for name in ("faces", "in_place", "elsewhere")} == {
        "faces": 6, "in_place": 5, "elsewhere": 1,
    }  # fmt: skip
    back = pickle.loads(path.read_bytes())
    assert [record["identity"] for record in back] == [record["identity"] for record in value]
    assert [record["hash"] for record in back] == [record["hash"] for record in value]
    for one, other in zip(back, value, strict=True):
        assert {type(number) for number in one["embedding"]} == {float}
        raw = np.array(other["embedding"])
        np.testing.assert_allclose(one["embedding"], raw / np.linalg.norm(raw), atol=1e-7)

    status, out, _ = run("export", "--domain", "office", "back.npz")
    assert (status, "refresh_database=False" in out) == (0, True)
    with np.load("back.npz", allow_pickle=False) as columns:
        assert columns["identity"].tolist()[0] == "p0/0.jpg"
        assert columns["embedding"].dtype == np.float64
    status, out, _ = run("import", "--domain", "office", "--accept", "detector", "back.npz", "--json")
    assert (status, json.loads(out)["stores"]["pkl"]["unchanged"]) == (0, 6)


def deepface_hash(status: os.stat_result) -> str:
    """``find_image_hash`` of DeepFace's ``commons/image_utils.py``."""
    return hashlib.sha1(f"{status.st_size}-{status.st_ctime}-{status.st_mtime}".encode()).hexdigest()


def test_the_command_says_what_does_not_fit_and_how_to_go_on(run: Run, tmp_path: Path) -> None:
    path = written(tmp_path / "faces", records(), NAME.replace("opencv", "mtcnn"))
    status, _, err = run("import", "--domain", "office", path)
    assert status == 2
    assert "mtcnn" in err and "--accept detector" in err
    status, out, _ = run("import", "--domain", "office", "--accept", "detector", path)
    assert (status, "It was accepted." in out) == (0, True)
    for wrong, word in ((tmp_path / "missing.pkl", "No such file"), (tmp_path / "arcface.onnx", ".npz")):
        status, _, err = run("import", "--domain", "office", wrong)
        assert (status, word in err) == (2, True), err
    hostile = written(tmp_path / "faces", [{"identity": "a/1.jpg", "embedding": Evil(tmp_path / "canary")}], "x.pkl")
    status, _, err = run("import", "--domain", "office", hostile)
    assert (status, "nothing of it was run" in err, (tmp_path / "canary").exists()) == (2, True, False)
    status, _, err = run("export", "--domain", "nobody", "x.npz")
    assert (status, "holds no face" in err, Path("x.npz").exists()) == (2, True, False)
    status, _, err = run("export", "--domain", "office", "x.csv")
    assert status == 2


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def test_the_pkl_gallery_of_a_domain_is_a_gallery_of_deepface_as_it_is(stores: Stores, tmp_path: Path) -> None:
    path = written(tmp_path / "faces", records(prefix="faces"))
    theirs = tmp_path / "galleries" / "office" / NAME
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(path.read_bytes())
    (matches,) = stores.pkl.search(unit_rows(6, DIMENSION)[3:4], "office", 0.68, 1)
    assert (matches[0].person, matches[0].source) == ("p1", "p1/1.jpg")
    assert matches[0].distance < 1e-6
    assert len(read_gallery(theirs).faces) == 6


KILLS = 7


def test_an_importer_killed_at_any_moment_leaves_the_stores_equal_and_another_one_completes(
    tmp_path: Path, database: str
) -> None:
    card = make_card("tiny", 64)
    files = {}
    for version in (1, 2, 3):
        rows = unit_rows(900, 64, version).tolist()
        value = [
            {"identity": f"/x/p{number // 3}/{number % 3}.jpg", "hash": f"{version}", "embedding": row}
            for number, row in enumerate(rows)
        ]
        files[str(version)] = written(tmp_path / "files", value, f"{version}.pkl")
    command = [sys.executable, str(Path(__file__).with_name("restless_importer.py")), str(tmp_path), database]
    chance = random.Random(3)
    killed, seen = 0, set()
    with (
        PgvectorStore(database, card, 10.0) as pgvector,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nursery,
    ):
        assert nursery.stdin is not None and nursery.stdout is not None
        stores = Stores(PklStore(tmp_path / "galleries", card, "none"), pgvector)
        for number in range(KILLS):
            path = files[str(number % 3 + 1)]
            print(path, file=nursery.stdin, flush=True)
            importer = int(nursery.stdout.readline())
            time.sleep(chance.uniform(0.0, 0.5))
            with suppress(ProcessLookupError):
                os.kill(importer, signal.SIGKILL)
            finished = nursery.stdout.readline() == "done\n"
            if finished:
                assert nursery.stdout.readline() == "gone\n"
            killed += not finished
            assert recover(stores) == {} and pending(stores) == {}
            held = content(stores.pkl)
            assert not compare_faces(stores.pkl.faces("office"), pgvector.faces("office"))
            versions = {digest for _, _, digest, _, _ in held}
            assert len(versions) <= 1 and len(held) in {0, 900}, "half of a gallery is there"
            assert not finished or versions == {path.stem}
            seen |= versions
        nursery.stdin.close()
        path = files["2"]
        with path.open("rb") as file:
            report = import_gallery(stores, card, "none", "office", GalleryFile(file, "g.pkl"), stage=silent)
        assert report.complete
        assert {face[2] for face in content(stores.pkl)} == {"2"}
        assert not compare_faces(stores.pkl.faces("office"), pgvector.faces("office"))
    assert killed and seen
