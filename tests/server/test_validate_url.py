"""``python -m matchers validate --url``: a running server is asked, with a token that is never on the command line."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cv2
import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from starlette.applications import Starlette

from matchers.__main__ import main
from matchers.demo import ensure_demo
from matchers.service import open_stores
from models.settings import Settings
from runtime.decode import decode
from runtime.engine import FaceEngine
from server.app import create_app

TOKEN = "the token of the test"
Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture(scope="module")
def url(
    engine: FaceEngine,
    models_dir: Path,
    postgres: str,
    serve: Callable[[Starlette], AbstractContextManager[httpx.Client]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """Address of a server in ``dual`` that asks for a token."""
    name = f"url_{uuid.uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(name)))
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path_factory.mktemp("data"),
        models_dir=models_dir,
        database_url=make_conninfo(postgres, dbname=name),
        api_tokens=TOKEN,
    )
    with open_stores(settings, engine.embedder_card, engine.detector_card.name) as stores:
        ensure_demo(engine, stores)
        with serve(create_app(settings, engine, stores)) as client:
            yield str(client.base_url)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def images(engine: FaceEngine, group_picture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six people of the demo domain, each in a picture and a folder of its own, the group, and a wall."""
    folder = tmp_path_factory.mktemp("images")
    image = decode(group_picture.read_bytes())
    boxes = sorted(engine.detector.detect(image).boxes.tolist())
    for number, (x, y, width, height) in enumerate(boxes, start=1):
        margin = width / 3
        cut = image[
            max(int(y - margin), 0) : int(y + height + margin), max(int(x - margin), 0) : int(x + width + margin)
        ]
        (folder / f"guest-{number}").mkdir()
        cv2.imwrite(str(folder / f"guest-{number}" / "crop.png"), cut)
    (folder / "group.jpg").write_bytes(group_picture.read_bytes())
    (folder / "broken.jpg").write_text("no picture")
    return folder


@pytest.fixture
def run(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("FACE_TOKEN", raising=False)
    monkeypatch.setenv("GATE_COMPARISONS", "10")
    monkeypatch.setenv("GATE_IN_SYNC", "false")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        given = ("--domain", "demo", "--images", str(images), "--report", "r", "--json", *arguments)
        status = main(["validate", *given])
        captured = capsys.readouterr()
        return status, json.loads(captured.out) if captured.out else {}, captured.err

    return run


def test_a_server_in_dual_is_validated_from_outside(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FACE_TOKEN", TOKEN)
    status, found, _ = run("--url", url, "--no-leave-one-out")
    assert (status, found["pictures"], found["faces"], found["where"]) == (0, 7, 12, url.rstrip("/"))
    assert found["summary"]["top1_rate"] == 1
    assert found["summary"]["distance_delta"]["max"] < 1e-5
    assert found["names"]["pgvector"] == {"right": 6, "wrong": 0, "unnamed": 0}
    assert list(found["problems"]) == ["broken.jpg"]
    assert set(found["latency_ms"]) == {"request", "PKL", "pgvector"}
    assert found["latency_ms"]["request"]["p50"] > found["latency_ms"]["pgvector"]["p50"]
    report = (tmp_path / "r" / "report.html").read_text() + (tmp_path / "r" / "report.json").read_text()
    assert TOKEN not in report

    # The server also tells, to a token that may ask, whether both stores hold the same pictures.
    assert found["differences"] == 0
    monkeypatch.setenv("GATE_IN_SYNC", "true")
    (tmp_path / "token").write_text(TOKEN + "\n")
    monkeypatch.delenv("FACE_TOKEN")
    status, found, _ = run("--url", url, "--token-file", "token", "--limit", "7")
    assert (status, found["pictures"], found["gates"][-1]["figure"]) == (0, 6, 0)


@pytest.mark.parametrize("token", ["", "another token"])
def test_a_server_that_refuses_is_named_and_the_token_is_not(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("FACE_TOKEN", token)
    status, found, err = run("--url", url)
    assert (status, found["status"]) == (2, "error")
    assert "401" in err
    assert not token or token not in err


def test_a_domain_in_one_store_only_cannot_be_validated(run: Run, client: httpx.Client) -> None:
    status, found, err = run("--url", str(client.base_url))
    assert (status, found["status"]) == (2, "error")
    assert "one store only (mode pkl_only)" in err
    status, _, err = run("--url", str(client.base_url), "--domain", "nobody")
    assert status == 2
    assert "no domain 'nobody'" in err
    status, _, err = run("--url", f"{client.base_url}openapi.json?")
    assert status == 2
