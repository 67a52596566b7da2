"""From PKL to pgvector over HTTP: modes, gates, what was recorded, and who changed what."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from test_api import checked, refused

from matchers.dual import PGVECTOR_FAILED
from matchers.embedded import EmbeddedPostgres
from matchers.service import Stores, open_stores
from models.settings import Settings
from runtime.engine import FaceEngine
from server.app import create_app

WAIT = 30.0
FACES = 6


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, furnished: Callable[[Path], Path]) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(furnished(tmp_path_factory.mktemp("cutover postgres"))) as server:
        yield server


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, database: EmbeddedPostgres) -> Settings:
    return Settings(
        _env_file=None,
        data_dir=tmp_path_factory.mktemp("cutover"),
        models_dir=models_dir,
        database_url=make_conninfo(database.start(), dbname="postgres"),
        pgvector_timeout=1,
        gate_comparisons=3 * FACES,
        api_tokens=SecretStr("s3cret"),
    )


@pytest.fixture(scope="module")
def opened(settings: Settings, engine: FaceEngine) -> Iterator[Stores]:
    with open_stores(settings, engine.embedder_card, engine.detector_card.name) as stores:
        yield stores


@pytest.fixture(scope="module")
def service(settings: Settings, engine: FaceEngine, opened: Stores, serve: Any) -> Iterator[httpx.Client]:
    with serve(create_app(settings, engine, opened)) as client:
        client.headers["Authorization"] = "s3cret"
        yield client


@pytest.fixture
def office(service: httpx.Client, portraits: list[bytes]) -> Iterator[str]:
    """A domain of two people, in both stores."""
    assert service.post("/domains/office").status_code == 201
    for name, data in zip(("amy", "bob"), portraits, strict=False):
        assert service.post(f"/domains/office/people/{name}", files={"images": data}).status_code == 201
    yield "/domains/office"
    assert service.delete("/domains/office").status_code == 200


def put_mode(client: httpx.Client, mode: str, **more: Any) -> Any:
    return checked(client.put("/domains/office/mode", json={"mode": mode, **more}), "DomainMode")


def ask(client: httpx.Client, picture: Path) -> str:
    answer = client.post("/analyze?domain=office", files={"image": picture.read_bytes()})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body["recognized_faces"]) == {"amy", "bob"} & set(body["recognized_faces"])
    return str(body["mode"])


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)
    return found


def told(client: httpx.Client, comparisons: int, **query: Any) -> Any:
    """What is told once so many comparisons are recorded."""

    def look() -> Any:
        body = checked(client.get("/domains/office/comparisons", params=query), "Comparisons")
        return body if body["summary"]["comparisons"] >= comparisons else None

    return until(look)


def test_a_domain_goes_to_pgvector_when_the_gates_hold(service: httpx.Client, office: str, group_picture: Path) -> None:
    body = checked(service.get(f"{office}/mode"), "DomainMode")
    assert (body["mode"], body["default"], body["answering"], body["set_by"]) == ("dual", True, "dual", None)
    assert put_mode(service, "pkl_only")["answering"] == "pkl_only"
    assert ask(service, group_picture) == "pkl_only"
    assert put_mode(service, "dual")["default"] is False
    closed = service.put(f"{office}/mode", json={"mode": "pgvector_only"})
    refused(closed, 409, "gates_closed")
    gates = {gate["name"]: gate for gate in closed.json()["error"]["gates"]}
    assert (gates["comparisons"]["figure"], gates["comparisons"]["holds"]) == (0, False)
    assert gates["differences"]["holds"] is True
    assert [ask(service, group_picture) for _ in range(3)] == ["dual"] * 3
    found = told(service, 3 * FACES)
    summary = found["summary"]
    assert (summary["requests"], summary["failures"], summary["disagreements"]) == (3, 0, 0)
    assert (summary["top1_rate"], summary["top5_overlap"], found["holds"], found["waiting"]) == (1, 1, True, 0)
    assert summary["latency_ms"]["pkl"]["p50"] > 0
    assert summary["latency_ms"]["pgvector"]["p99"] > 0
    assert sum(bucket["comparisons"] for bucket in found["series"]) == 3 * FACES
    assert put_mode(service, "pgvector_only")["answering"] == "pgvector_only"
    assert ask(service, group_picture) == "pgvector_only"
    assert put_mode(service, "pkl_only")["set_by"] == "token-1"
    changes = checked(service.get(f"{office}/mode/history"), "ModeHistory")["changes"]
    steps = [(change["before"], change["after"], change["forced"]) for change in changes[:4]]
    assert steps == [
        ("pgvector_only", "pkl_only", False),
        ("dual", "pgvector_only", False),
        ("pkl_only", "dual", False),
        ("dual", "pkl_only", False),
    ]
    assert {gate["name"]: gate["figure"] for gate in changes[1]["gates"]}["comparisons"] == 3 * FACES


def test_closed_gates_can_be_forced_and_that_is_noted(service: httpx.Client, office: str) -> None:
    assert put_mode(service, "pgvector_only", force=True)["mode"] == "pgvector_only"
    last = service.get(f"{office}/mode/history").json()["changes"][0]
    assert (last["forced"], last["who"], last["before"]) == (True, "token-1", "dual")
    assert not all(gate["holds"] for gate in last["gates"])


def test_dual_can_be_sampled(service: httpx.Client, office: str, portraits: list[bytes], tmp_path: Path) -> None:
    picture = tmp_path / "amy.png"
    picture.write_bytes(portraits[0])
    assert put_mode(service, "dual", sample=0)["sample"] == 0
    assert {ask(service, picture) for _ in range(3)} == {"pkl_only"}
    put_mode(service, "dual", sample=0.5)
    modes = [ask(service, picture) for _ in range(20)]
    assert set(modes) == {"pkl_only", "dual"}


def test_a_disagreement_is_told_with_its_reason_until_the_person_is_deleted(
    service: httpx.Client, office: str, opened: Stores, group_picture: Path, settings: Settings
) -> None:
    assert opened.pgvector is not None
    opened.pgvector.apply("office", (), [face.source for face in opened.pgvector.faces("office", "bob")])
    put_mode(service, "dual")
    assert ask(service, group_picture) == "dual"
    found = told(service, FACES)
    assert found["summary"]["reasons"] == {"missing_in_pgvector": FACES}
    assert found["holds"] is False
    first = found["disagreements"][0]
    assert {match["person"] for match in first["pkl"]} == {"amy", "bob"}
    assert {match["person"] for match in first["pgvector"]} == {"amy"}
    assert first["comparison"]["top5_overlap"] == 0.5
    assert service.patch(f"{office}/people/amy", json={"person": "Amélie"}).status_code == 200
    assert service.delete(f"{office}/people/bob").json()["pending"] == []
    again = until(
        lambda: next(
            (
                body
                for body in [service.get(f"{office}/comparisons", params={"limit": 1}).json()]
                if {match["person"] for match in body["disagreements"][0]["pkl"]} == {"Amélie", None}
            ),
            None,
        )
    )
    assert again["summary"]["comparisons"] == FACES
    with psycopg.connect(settings.database_url) as connection:
        people = connection.execute("SELECT person FROM face_service.compared_names").fetchall()
    assert set(people) == {("Amélie",)}


def test_a_domain_that_is_made_anew_has_no_past(
    service: httpx.Client, office: str, group_picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long an answer may be kept, and though nobody set a mode."""
    until(lambda: ask(service, group_picture) == "dual")
    told(service, FACES)
    monkeypatch.setattr("server.recent._LEAST_SECONDS", 60.0)
    kept = {"limit": 7}
    assert service.get(f"{office}/comparisons", params=kept).json()["summary"]["comparisons"] >= FACES
    assert service.delete(office).json()["pending"] == []
    assert service.post(office).status_code == 201
    found = checked(service.get(f"{office}/comparisons", params=kept), "Comparisons")
    assert (found["summary"]["comparisons"], found["series"], found["disagreements"]) == (0, [], [])


def test_pgvector_fails_and_comes_back(
    service: httpx.Client, office: str, group_picture: Path, database: EmbeddedPostgres
) -> None:
    """PKL answers meanwhile, says so, and lets go by itself; who looks later can see it."""

    def answering() -> str:
        return str(service.get(f"{office}/mode").json()["answering"])

    put_mode(service, "pgvector_only", force=True)
    assert ask(service, group_picture) == answering() == "pgvector_only"
    assert database.pid is not None
    processes = [psutil.Process(database.pid), *psutil.Process(database.pid).children()]
    for process in processes:
        process.suspend()
    try:
        assert {ask(service, group_picture) for _ in range(4)} == {PGVECTOR_FAILED}
        assert answering() == PGVECTOR_FAILED
    finally:
        for process in processes:
            process.resume()
    until(lambda: answering() == "pgvector_only")
    assert ask(service, group_picture) == "pgvector_only"

    def noted() -> list[tuple[str, str, str]]:
        changes = service.get(f"{office}/mode/history").json()["changes"]
        return [(change["who"], change["before"], change["after"]) for change in changes[:2]]

    fell, rose = ("pgvector_only", PGVECTOR_FAILED), (PGVECTOR_FAILED, "pgvector_only")
    until(lambda: noted() == [("automatic", *rose), ("automatic", *fell)])


def test_failures_of_dual_are_recorded_while_postgresql_is_away(
    service: httpx.Client, office: str, group_picture: Path, database: EmbeddedPostgres, opened: Stores
) -> None:
    put_mode(service, "dual")
    assert database.pid is not None
    processes = [psutil.Process(database.pid), *psutil.Process(database.pid).children()]
    for process in processes:
        process.suspend()
    try:
        assert ask(service, group_picture) == PGVECTOR_FAILED
        until(lambda: opened.comparisons.spool.waiting() == 1)
    finally:
        for process in processes:
            process.resume()
    until(lambda: opened.comparisons.spool.waiting() == 0)
    found = until(
        lambda: next(
            (
                body
                for body in [service.get(f"{office}/comparisons").json()]
                if body.get("summary", {}).get("failures") == 1
            ),
            None,
        )
    )
    assert (found["summary"]["failure_rate"], found["summary"]["comparisons"], found["holds"]) == (1, 0, False)
    assert re.search("PostgreSQL|pgvector", found["failures"][0]["error"])


def test_what_cannot_be_asked_for(service: httpx.Client, office: str, client: httpx.Client) -> None:
    for body in ({}, {"mode": "both"}, {"mode": "dual", "sample": 2}, {"mode": "dual", "sample": True}, {"mode": []}):
        refused(service.put(f"{office}/mode", json=body), 422, "invalid_body")
    for query in (
        {"since": "yesterday"},
        {"until": "2026-13-01T00:00:00Z"},
        {"since": "0001-01-01T00:00:00+23:59"},
        {"until": "9999-12-31T23:59:59-23:59"},
    ):
        refused(service.get(f"{office}/comparisons", params=query), 422, "invalid_moment")
    refused(service.get(f"{office}/comparisons", params={"buckets": 0}), 422, "invalid_number")
    assert service.get(f"{office}/comparisons", params={"since": "1h"}).json()["summary"]["requests"] == 0
    refused(service.get("/domains/nowhere/mode"), 404, "unknown_domain")
    refused(client.put("/domains/demo/mode", json={"mode": "dual"}), 409, "pgvector_off")
    refused(client.get("/domains/demo/comparisons"), 409, "pgvector_off")
    assert client.put("/domains/demo/mode", json={"mode": "pkl_only"}).status_code == 200
