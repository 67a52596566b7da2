"""``python -m matchers validate``: real pictures, both stores, and what it says when they differ."""

from __future__ import annotations

import json
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from matchers.__main__ import main
from matchers.base import Match
from matchers.compare import compare
from matchers.gallery_sizes import sizes_for
from matchers.gates import Gates
from matchers.html import Card, Page, Section, Table, render
from matchers.pgvector import PgvectorStore
from matchers.service import Stores, open_stores
from matchers.validation import Context, FaceAnswer, Image, PictureAnswer, ValidationError, assess, list_images
from models.settings import Settings
from runtime.engine import FaceEngine

DEAD = "host=127.0.0.1 port=1 user=nobody dbname=nothing"
PEOPLE = ("amy", "howard", "penny")

Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture(scope="module")
def images(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people with five pictures each."""
    folder = tmp_path_factory.mktemp("images")
    for person in PEOPLE:
        shutil.copytree(shared / "faces" / "bbt" / person, folder / person)
    return folder


@pytest.fixture(scope="module")
def environment(
    images: Path, models_dir: Path, postgres: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, str]]:
    """Settings of a data folder and a database in which both stores hold the domain ``cast``."""
    name = f"validate_{uuid.uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(name)))
    settings = {
        "DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "MODELS_DIR": str(models_dir),
        "DATABASE_URL": make_conninfo(postgres, dbname=name),
        "EXECUTION_PROVIDER": "cpu",
        "GATE_COMPARISONS": "10",
    }
    with pytest.MonkeyPatch.context() as patch:
        _set(patch, settings)
        assert main(["sync", "--domain", "cast", "--images", str(images)]) == 0
    yield settings
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def run(
    environment: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run ``validate`` with ``--json`` in this process: exit status, what it prints, and what it complains of."""
    monkeypatch.chdir(tmp_path)
    _set(monkeypatch, environment)

    def run(*arguments: str | Path) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        status = main(["validate", "--domain", "cast", "--report", "r", "--json", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, json.loads(captured.out) if captured.out else {}, captured.err

    return run


@pytest.fixture
def stores(environment: Mapping[str, str], engine: FaceEngine) -> Iterator[Stores]:
    settings = Settings(
        _env_file=None, data_dir=Path(environment["DATA_DIR"]), database_url=environment["DATABASE_URL"]
    )
    with open_stores(settings, engine.embedder_card, engine.detector_card.name) as opened:
        yield opened


def _set(patch: pytest.MonkeyPatch, settings: Mapping[str, str]) -> None:
    for name in Settings.model_fields:
        patch.delenv(name.upper(), raising=False)
    for name, value in settings.items():
        patch.setenv(name, value)


def _tables(environment: Mapping[str, str]) -> list[tuple[Any, ...]]:
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'face_service' ORDER BY 1")
        return [*tables.fetchall(), *connection.execute("SELECT model FROM face_service.models").fetchall()]


def test_equal_stores_hold_the_gates_and_are_only_read(
    run: Run, images: Path, tmp_path: Path, environment: Mapping[str, str]
) -> None:
    data_dir = Path(environment["DATA_DIR"])
    before = _tables(environment), sorted(data_dir.rglob("*"))
    status, found, _ = run("--images", images)
    assert (status, found["holds"], found["pictures"], found["faces"]) == (0, True, 15, 15)
    assert found["summary"]["top1_rate"] == found["summary"]["top5_overlap"] == 1
    assert found["summary"]["distance_delta"]["max"] < 1e-5
    assert {name: figures["p50"] > 0 for name, figures in found["latency_ms"].items()} == {
        "PKL alone": True,
        "pgvector alone": True,
        "dual": True,
    }
    # Each picture would find itself; without itself it finds its person's other pictures.
    assert found["left_out"] == 15
    assert found["names"]["pkl"] == found["names"]["pgvector"]
    assert found["names"]["pkl"]["right"] >= 14
    assert found["names"]["pkl"]["wrong"] == 0
    assert [point["size"] for point in found["sizes"]] == [15]
    assert found["sizes"][0]["top1_rate"] == 1
    assert (_tables(environment), sorted(data_dir.rglob("*"))) == before

    html = (tmp_path / "r" / "report.html").read_text()
    assert not re.search(r"https?:|//[a-z]|<script|<link|@import|srcset|xmlns", html)
    assert all(address.startswith(("#", "data:")) for address in re.findall(r'(?:src|href)="([^"]+)', html))
    assert html.count("<svg ") == 4
    assert "The gates hold" in html
    assert "personal data" in html
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "r").iterdir()} == {0o600}
    assert json.loads((tmp_path / "r" / "report.json").read_text()) == {
        key: value for key, value in found.items() if key != "report"
    }


def test_stores_that_differ_close_the_gates_and_show_each_face(
    run: Run, images: Path, tmp_path: Path, stores: Stores
) -> None:
    pgvector = stores.pgvector
    assert pgvector is not None
    faces = {face.source: face for face in pgvector.faces("cast")}
    wrong = replace(faces["howard/howard1.png"], embedding=faces["penny/penny1.png"].embedding)
    pgvector.apply("cast", [wrong], ["amy/amy1.png"])
    try:
        status, found, _ = run("--images", images, "--no-sizes")
    finally:
        pgvector.apply("cast", [faces["howard/howard1.png"], faces["amy/amy1.png"]], ())
    assert (status, found["holds"], found["differences"], found["sizes"]) == (1, False, 2, [])
    assert {gate["name"] for gate in found["gates"] if not gate["holds"]} >= {"top5_overlap", "differences"}
    reasons = {one["source"]: one["reason"] for one in found["disagreements"]}
    assert reasons["amy/amy1.png"] == "missing_in_pgvector"
    assert reasons["howard/howard1.png"] == "other_embedding"
    html = (tmp_path / "r" / "report.html").read_text()
    assert html.count('src="data:image/jpeg;base64,') == len(found["disagreements"])
    assert "The gates do not hold" in html


def test_flat_pictures_a_limit_and_no_leaving_out(run: Run, images: Path, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for person in PEOPLE:
        shutil.copy(images / person / f"{person}1.png", tmp_path / "flat")
    (tmp_path / "flat" / "broken.jpg").write_text("no picture")
    status, found, _ = run("--images", tmp_path / "flat", "--no-sizes")
    assert (status, found["pictures"], found["names"]) == (1, 3, None)
    assert list(found["problems"]) == ["broken.jpg"]
    assert [gate["name"] for gate in found["gates"] if not gate["holds"]] == ["comparisons"]

    _, found, _ = run("--images", images, "--limit", "3", "--no-sizes", "--no-leave-one-out")
    assert (found["pictures"], found["left_out"]) == (3, None)
    assert found["names"]["pkl"] == {"right": 3, "wrong": 0, "unnamed": 0}


@pytest.mark.parametrize(
    ("arguments", "settings", "complaint"),
    [
        (("--images", "nowhere"), {}, "nowhere is not a folder"),
        (("--images", "."), {}, "holds no picture"),
        (("--images", "IMAGES", "--domain", "nobody"), {}, "no domain 'nobody'"),
        (("--images", "IMAGES", "--domain", "../cast"), {}, "domain's name"),
        (("--images", "IMAGES"), {"DATABASE_URL": DEAD}, "127.0.0.1"),
        (("--images", "IMAGES"), {"VECTOR_DB_ENABLED": "false"}, "switched off"),
        (("--images", "IMAGES", "--token-file", "t"), {}, "--token-file is for --url"),
        (("--images", "IMAGES", "--url", "ftp://x"), {}, "begins with http"),
        (("--images", "IMAGES", "--url", "http://127.0.0.1:1"), {}, "cannot be asked"),
        (("--images", "IMAGES", "--url", "http://127.0.0.1:1", "--token-file", "t"), {}, "t cannot be read"),
        (("--images", "IMAGES", "--report", "file"), {}, "cannot be made"),
    ],
)
def test_what_cannot_be_done_ends_with_status_2_and_one_line(
    run: Run,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    arguments: tuple[str, ...],
    settings: Mapping[str, str],
    complaint: str,
) -> None:
    (tmp_path / "file").write_text("")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    status, found, err = run(*(str(images) if argument == "IMAGES" else argument for argument in arguments))
    assert (status, found["status"]) == (2, "error")
    assert complaint in found["message"]
    assert complaint in err
    assert err.splitlines()[-1].startswith("matchers: ")
    assert not (tmp_path / "r" / "report.html").exists()


def _answer(person: str, pkl: Match, pgvector: Match, own: frozenset[str] = frozenset()) -> PictureAnswer:
    image = Image(f"{person}/1.jpg", Path("gone.jpg"), person)
    face = FaceAnswer((0, 0, 9, 9), [pkl], [pgvector], compare([pkl], [pgvector]), own)
    return PictureAnswer(image, [face], False, True, 1.0, 2.0, {"dual": 2.5})


def test_names_failures_and_gates_by_hand() -> None:
    amy, bob, far = Match("amy", 0.2, "amy/2.jpg"), Match("bob", 0.3, "bob/2.jpg"), Match("amy", 0.9, "amy/2.jpg")
    failed = PictureAnswer(Image("x.jpg", Path("x.jpg"), None), (), True, True, 1.0, None, {})
    answers = [
        _answer("amy", amy, amy),
        _answer("amy", bob, bob),
        _answer("amy", far, far),
        _answer("amy", amy, amy, own=frozenset({"amy/2.jpg"})),
        _answer("amy", amy, bob),
        failed,
    ]
    context = Context("d", "in this process", "", 0.5, 0, frozenset({"amy/2.jpg", "bob/2.jpg"}), None, False, True)
    found = assess(answers, context, Gates(min_comparisons=5, max_failure_rate=0.1))
    assert found.names is not None
    assert (found.names["pkl"].right, found.names["pkl"].wrong, found.names["pkl"].unnamed) == (2, 1, 2)
    assert (found.names["pgvector"].right, found.names["pgvector"].wrong) == (1, 2)
    assert (found.summary.requests, found.summary.failures, found.summary.comparisons) == (6, 1, 5)
    assert [one.reason for one in found.disagreements] == ["unexplained"]
    assert not found.holds
    assert {gate.name for gate in found.gates if not gate.holds} == {"top1_rate", "top5_overlap", "failure_rate"}
    assert found.distances.tolist() == [[0.2, 0.2], [0.3, 0.3], [0.9, 0.9], [0.2, 0.2]]
    assert not assess([], context, Gates()).holds


def test_pictures_are_listed_once_and_a_limit_spreads_over_them(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "a/1.JPG", "a/.hidden.jpg", ".trash/1.jpg", "flat.png", "a/text.txt", "a/deep/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [(image.source, image.person) for image in list_images(tmp_path)] == [
        ("a/1.JPG", "a"),
        ("b/2.jpg", "b"),
        ("flat.png", None),
    ]
    assert [image.source for image in list_images(tmp_path, 2)] == ["a/1.JPG", "b/2.jpg"]
    with pytest.raises(ValidationError):
        list_images(tmp_path / "a" / "deep" / "3.jpg")


def test_sizes_double_up_to_a_limit() -> None:
    assert sizes_for(3) == []
    assert sizes_for(40) == [10, 20, 40]
    assert sizes_for(1_000_000) == [1250, 2500, 5000, 10_000, 20_000]


def test_a_scratch_store_leaves_nothing_behind(stores: Stores, environment: Mapping[str, str]) -> None:
    before = _tables(environment)
    pgvector = stores.pgvector
    assert pgvector is not None
    faces = pgvector.faces("cast")
    with pgvector.beside("somebody-else") as scratch:
        assert isinstance(scratch, PgvectorStore)
        scratch.apply("cast", faces[:4], ())
        assert (scratch.count("cast"), pgvector.count("cast")) == (4, 15)
        scratch.apply("other", faces[:2], ())
        assert scratch.indexed("cast") is False
        scratch.erase()
    assert _tables(environment) == before
    assert pgvector.search(faces[0].embedding[None], "cast", None, 1)[0][0].source == faces[0].source


def test_names_of_pictures_and_people_cannot_write_html() -> None:
    evil = "<script>alert(1)</script>\"'&"
    card = Card(b"jpeg", evil, evil, [(evil, [evil])])
    section = Section(evil, evil, [Table([evil], [[evil]])], (), [card], [(evil, [evil])])
    html = render(Page(evil, evil, evil, None, evil, evil, (), [section]))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 16


def test_latencies_of_an_empty_validation_are_no_error() -> None:
    context = Context("d", "in this process", "", 0.5, None, None, None, False, True)
    found = assess([], context, Gates())
    assert (found.faces, found.names, len(found.deltas)) == (0, None, 0)
    assert np.array_equal(found.distances, np.empty((0, 2)))
