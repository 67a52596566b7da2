"""``python -m matchers``: what an operator types and sees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psycopg
import pytest

from matchers.__main__ import main
from matchers.differences import KINDS
from matchers.pgvector import PgvectorStore
from runtime.decode import decode
from runtime.engine import FaceEngine

DEAD = "host=127.0.0.1 port=1 user=nobody dbname=nothing"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def settings(
    tmp_path: Path, models_dir: Path, database: str, plain_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS_DIR", str(models_dir))
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("EXECUTION_PROVIDER", "cpu")


@pytest.fixture
def plain_settings(plain_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests reaches the command."""
    for name in os.environ.keys() - plain_environment.keys():
        monkeypatch.delenv(name)


@pytest.fixture
def run(settings: None, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command in this process: exit status, stdout, stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def images(engine: FaceEngine, group_picture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first three people of the group picture, one picture each, and a wall."""
    folder = tmp_path_factory.mktemp("images")
    image = decode(group_picture.read_bytes())
    boxes = engine.embed_image(image).detections.boxes
    for name, box in zip(("amy", "bob", "eve"), boxes[np.argsort(boxes[:, 0])].astype(int), strict=False):
        x, y, width, height = box
        margin = width // 3
        crop = image[max(y - margin, 0) : y + height + margin, max(x - margin, 0) : x + width + margin]
        (folder / name).mkdir()
        cv2.imwrite(str(folder / name / "1.png"), cv2.copyMakeBorder(crop, 40, 40, 40, 40, cv2.BORDER_CONSTANT))
    cv2.imwrite(str(folder / "amy" / "wall.png"), np.full((100, 100, 3), 90, np.uint8))
    return folder


def test_sync_then_search_names_the_people(run: Run, images: Path, group_picture: Path) -> None:
    status, out, _ = run("sync", "--domain", "office", "--images", images, "--json")
    report = json.loads(out)
    assert status == 0
    assert report["stores"]["pkl"]["new"] == report["stores"]["pgvector"]["new"] == 3
    assert report["problems"] == [{"source": "amy/wall.png", "reason": "No face was found."}]

    status, out, _ = run("search", "--domain", "office", group_picture, "--json")
    answer: dict[str, Any] = json.loads(out)
    assert status == 0
    assert answer["mode"] == "dual"
    assert answer["recognized_faces"] == ["amy", "bob", "eve"]
    assert answer["comparison"]["top1_match"] is True
    assert len(answer["faces"]) == 6
    assert sum(face["person"] is None for face in answer["faces"]) == 3

    status, out, _ = run("search", "--domain", "office", "--mode", "pgvector_only", group_picture, "--json")
    assert (status, json.loads(out)["recognized_faces"]) == (0, ["amy", "bob", "eve"])

    status, out, _ = run("search", "--domain", "office", images / "bob/1.png")
    assert status == 0
    assert "There is one person in the picture: bob" in out
    assert "mode: dual" in out


def test_sync_says_what_it_did_and_what_it_left_out(run: Run, images: Path) -> None:
    status, out, _ = run("sync", "--domain", "office", "--images", images)
    assert status == 0
    assert "amy/wall.png: No face was found." in out
    assert "pgvector" in out
    status, out, _ = run("sync", "--domain", "office", "--images", images)
    assert status == 0
    assert "0 copied" in out


def test_status_shows_what_only_one_store_has(
    run: Run, images: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    run("sync", "--domain", "office", "--images", images)
    status, out, _ = run("status", "--json")
    in_step: dict[str, list[str]] = {kind: [] for kind in KINDS}
    holding = {"faces": 3, "pictures": 3, "people": 3}
    assert status == 0
    assert json.loads(out) == {
        "domains": [
            {
                "domain": "office",
                "pkl": holding,
                "pgvector": holding,
                "pending": 0,
                "differences": in_step,
                "by_person": {},
            }
        ],
        "pgvector_error": "",
    }

    monkeypatch.setenv("VECTOR_DB_ENABLED", "false")
    (extra := images.parent / "more" / "zoe").mkdir(parents=True)
    (extra / "9.png").write_bytes((images / "eve/1.png").read_bytes())
    run("sync", "--domain", "office", "--images", extra.parent)
    monkeypatch.setenv("VECTOR_DB_ENABLED", "true")
    status, out, _ = run("status", "--domain", "office", "--json")
    assert status == 0
    (office,) = json.loads(out)["domains"]
    assert office["differences"] == in_step | {
        "only_in_pkl": ["zoe/9.png"],
        "only_in_pgvector": ["amy/1.png", "bob/1.png", "eve/1.png"],
    }
    assert office["by_person"]["zoe"] == {"only_in_pkl": 1}
    status, out, _ = run("status")
    assert "only in pkl: zoe/9.png" in out
    assert "zoe: 1 only in pkl" in out
    assert "matchers repair --domain office" in out


def test_repair_makes_one_store_like_the_other(
    run: Run, images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    people = tmp_path / "people"
    shutil.copytree(images, people)
    run("sync", "--domain", "office", "--images", people)
    monkeypatch.setenv("VECTOR_DB_ENABLED", "false")
    (people / "amy/1.png").unlink()
    run("sync", "--domain", "office", "--images", people)
    monkeypatch.setenv("VECTOR_DB_ENABLED", "true")
    asked = ("repair", "--domain", "office", "--direction", "pkl-to-pgvector")
    status, out, _ = run(*asked, "--dry-run")
    assert (status, "would be removed from pgvector: amy/1.png" in out) == (0, True)
    status, out, _ = run(*asked, "--json")
    assert (status, json.loads(out)["removed"], json.loads(out)["copied"]) == (0, ["amy/1.png"], [])
    status, out, _ = run("status", "--json")
    assert json.loads(out)["domains"][0]["by_person"] == {}
    status, _, err = run("repair", "--domain", "nowhere", "--direction", "pgvector-to-pkl")
    assert (status, "nowhere" in err) == (2, True)
    assert run("purge", "--domain", "office")[0] == 0
    assert run("purge", "--domain", "nowhere")[0] == 2


def test_indexes_are_made_where_they_are_missing(run: Run, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("sync", "--domain", "office", "--images", images)
    assert run("index")[:2] == (0, "No domain lacks an index.\n")
    monkeypatch.setattr("matchers.service.PgvectorStore", partial(PgvectorStore, exact_limit=2))
    assert run("index")[:2] == (0, "Indexed: office.\n")
    assert json.loads(run("index", "--json")[1]) == {"built": [], "indexed": ["office"]}
    monkeypatch.setenv("VECTOR_DB_ENABLED", "false")
    assert run("index")[0] == 2


def test_status_of_nothing_tells_what_to_do(run: Run) -> None:
    status, out, _ = run("status")
    assert status == 0
    assert "python -m matchers sync" in " ".join(out.split())


def test_status_does_not_call_empty_what_it_cannot_see(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", DEAD)
    status, out, _ = run("status")
    assert (status, out.splitlines()[0]) == (1, "The PKL galleries hold no domain.")
    assert "pgvector does not answer" in out


def test_a_database_that_is_down_is_a_partial_failure(run: Run, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", DEAD)
    status, out, _ = run("sync", "--domain", "office", "--images", images, "--json")
    assert status == 1
    assert json.loads(out)["stores"]["pkl"]["new"] == 3
    assert "127.0.0.1" in json.loads(out)["stores"]["pgvector"]["error"]

    status, out, _ = run("search", "--domain", "office", images / "amy/1.png", "--json")
    assert status == 1
    assert json.loads(out)["mode"] == "pkl_only (pgvector failed)"
    assert json.loads(out)["recognized_faces"] == ["amy"]

    status, out, _ = run("status", "--json")
    assert status == 1
    assert json.loads(out)["domains"][0]["pgvector"] is None
    assert "127.0.0.1" in json.loads(out)["pgvector_error"]


def test_the_demo_domain_is_made_once_and_names_its_guests(run: Run, group_picture: Path) -> None:
    status, out, _ = run("demo", "--json")
    assert status == 0
    assert json.loads(out) == {"domain": "demo", "made": True, "picture": str(group_picture)}
    status, out, _ = run("search", "--domain", "demo", group_picture, "--json")
    answer = json.loads(out)
    assert status == 0
    assert answer["recognized_faces"] == [f"guest-{number}" for number in range(1, 7)]
    assert all(face["distance"] < 0.01 for face in answer["faces"])
    status, out, _ = run("demo")
    assert status == 0
    assert "was there already" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("sync", "--domain", "office", "--images", "nowhere"), "nowhere is not a folder"),
        (("sync", "--domain", "../office", "--images", "."), "domain's name"),
        (("sync", "--domain", "office", "--images", "."), "sync --allow-empty`"),
        (("sync", "--domain", "office", "--images", "."), "text.jpg: The picture is in no person's folder."),
        (("report", "--domain", "office"), "no domain 'office'"),
        (("report", "--domain", "office", "--json"), "no domain 'office'"),
        (("export", "--domain", "office", "x.pkl"), "pgvector holds no face of 'office'"),
        (("validate", "--domain", "office", "--images", ".", "--report", "r"), "no domain 'office'"),
        (("import", "--domain", "office", "text.jpg"), "ends in .pkl, .npz, .parquet or .feather"),
        (("search", "--domain", "office", "nowhere.jpg"), "nowhere.jpg cannot be read"),
        (("search", "--domain", "office", "text.jpg"), "not a picture"),
        (("search", "--domain", "office", "wall.png"), "office"),
        (("status", "--domain", "office"), "no domain 'office'"),
    ],
)
def test_wrong_input_is_one_clear_line(run: Run, tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    (tmp_path / "text.jpg").write_text("this is no picture")
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((100, 100, 3), 90, np.uint8))
    status, out, err = run(*arguments)
    assert status == 2
    assert complaint in err
    assert err.startswith("matchers: ")
    assert err.count("\n") == 1
    if "--json" in arguments:
        assert json.loads(out) == {"status": "error", "message": err.removeprefix("matchers: ").rstrip()}
    else:
        assert out == ""


def test_missing_models_and_wrong_settings_are_one_clear_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOP_K", "many")
    status, _, err = run("status")
    assert status == 2
    assert "TOP_K" in err
    monkeypatch.setenv("TOP_K", "3")
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "no models"))
    status, _, err = run("status")
    assert status == 2
    assert "python -m convert fetch" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["", "sync", "search", "status", "demo", "validate", "evaluate"])
def test_help_teaches_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "  python -m matchers" in out
    assert "Exit status" in out


def test_json_on_stdout_stays_alone_in_a_real_process(settings: None, images: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "matchers", "sync", "--domain", "office", "--images", str(images), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["complete"] is True


def test_a_reader_of_an_answer_that_has_seen_enough_hears_no_complaint(run: Run, group_picture: Path) -> None:
    assert run("demo")[0] == 0
    command = [sys.executable, "-m", "matchers", "search", "--domain", "demo", "--json", str(group_picture)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_store_that_was_down_gets_the_demo_later(run: Run, monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    monkeypatch.setenv("DATABASE_URL", DEAD)
    run("demo")
    monkeypatch.setenv("DATABASE_URL", database)
    run("demo")
    _, out, _ = run("status", "--domain", "demo", "--json")
    domain = json.loads(out)["domains"][0]
    assert domain["pkl"] == domain["pgvector"] == {"faces": 6, "pictures": 6, "people": 6}
    assert not any(domain["differences"].values())


def test_the_demo_never_touches_a_domain_of_that_name_with_other_people(run: Run, images: Path, database: str) -> None:
    run("sync", "--domain", "demo", "--images", images)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP SCHEMA face_service CASCADE")
    status, out, _ = run("demo", "--json")
    assert (status, json.loads(out)["made"]) == (0, False)
    _, out, _ = run("status", "--json")
    assert [(domain["domain"], domain["pgvector"]["faces"]) for domain in json.loads(out)["domains"]] == [("demo", 0)]
