"""Filling a domain by a job that is followed over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from test_api import checked, refused

from matchers.service import Stores, open_stores
from models.settings import Settings
from runtime.engine import FaceEngine
from server.app import create_app


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, portraits: list[bytes]) -> Settings:
    folder = tmp_path_factory.mktemp("filling")
    for name, data in zip(("amy/1.png", "amy/2.png", "bob/1.png"), portraits, strict=False):
        path = folder / "images" / "office" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "images" / "empty").mkdir()
    return Settings(
        _env_file=None,
        data_dir=folder / "data",
        models_dir=models_dir,
        images_dir=folder / "images",
        vector_db_enabled=False,
    )


@pytest.fixture(scope="module")
def opened(settings: Settings, engine: FaceEngine) -> Iterator[Stores]:
    with open_stores(settings, engine.embedder_card, engine.detector_card.name) as stores:
        yield stores


@pytest.fixture(scope="module")
def service(settings: Settings, engine: FaceEngine, opened: Stores, serve: Any) -> Iterator[httpx.Client]:
    with serve(create_app(settings, engine, opened)) as client:
        yield client


def followed(client: httpx.Client, job: str) -> list[tuple[str, Any]]:
    """The events of a job, in order."""
    found = []
    with client.stream("GET", f"/jobs/{job}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for block in "".join(answer.iter_text()).split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if "event" in lines:
                found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_a_folder_of_the_server_is_synchronised_and_followed(service: httpx.Client, opened: Stores) -> None:
    answer = service.post("/domains/office/sync")
    assert answer.status_code == 202
    job = checked(answer, "JobAnswer")["job"]
    assert (job["domain"], job["kind"], job["state"]) == ("office", "sync", "running")
    *progress, (last, data) = followed(service, job["id"])
    assert last == "done"
    assert all(name == "progress" and event["done"] <= event["total"] for name, event in progress)
    report = data["report"]
    assert (report["added"], report["unchanged"], report["skipped"], report["complete"]) == (3, 0, [], True)
    assert opened.pkl.count("office") == 3
    state = checked(service.get(f"/jobs/{job['id']}"), "JobAnswer")["job"]
    assert (state["state"], state["report"]) == ("done", report)
    assert followed(service, job["id"]) == [("done", {"report": report})]
    face = service.get("/domains/office/people/amy").json()["faces"][0]
    assert face["thumbnail"] is True


def test_what_was_enrolled_over_http_survives_a_sync(
    service: httpx.Client, opened: Stores, portraits: list[bytes]
) -> None:
    service.post("/domains/office")
    service.post("/domains/office/people/eve", files={"images": portraits[3]})
    *_, (last, data) = followed(service, service.post("/domains/office/sync").json()["job"]["id"])
    assert (last, data["report"]["kept"], data["report"]["removed"]) == ("done", 1, 0)
    assert len(opened.pkl.faces("office", "eve")) == 1


def test_a_job_that_cannot_do_its_work_says_why(service: httpx.Client) -> None:
    job = service.post("/domains/empty/sync").json()["job"]
    ((name, data),) = [event for event in followed(service, job["id"]) if event[0] != "progress"]
    assert (name, data["error"]["code"]) == ("failed", "folder_unusable")
    refused(service.post("/domains/elsewhere/sync"), 422, "folder_unusable")
    refused(service.get("/jobs/" + "0" * 32), 404, "unknown_job")
    refused(service.get("/jobs/nonsense/events"), 422, "invalid_name")


def test_one_job_at_a_time_works_on_a_domain(service: httpx.Client, settings: Settings) -> None:
    from matchers.jobs import JobFolder

    held = JobFolder(settings.data_dir / "jobs").start("office", "import")
    refused(service.post("/domains/office/sync"), 409, "job_running")
    held.fail("no", "because")
    held.close()
    assert followed(service, service.post("/domains/office/sync").json()["job"]["id"])[-1][0] == "done"


def test_only_administrators_of_the_domain_follow_its_jobs(
    settings: Settings, engine: FaceEngine, opened: Stores, serve: Any, tmp_path: Path
) -> None:
    from server.tokens import new_token

    tokens = tmp_path / "tokens.toml"
    secrets, entries = zip(
        new_token("reader", ["analyze"], None, 0),
        new_token("elsewhere", ["admin"], ["other"], 0),
        new_token("boss", ["admin"], ["office"], 0),
        strict=True,
    )
    tokens.write_text("\n".join(entries))
    guarded = settings.model_copy(update={"api_tokens": SecretStr(""), "api_tokens_file": tokens, "images_dir": None})
    reader, elsewhere, boss = ({"Authorization": secret} for secret in secrets)
    with serve(create_app(guarded, engine, opened)) as client:
        states = (json.loads(path.read_text()) for path in (settings.data_dir / "jobs").glob("*.json"))
        job = next(state["id"] for state in states if state["domain"] == "office")
        refused(client.get(f"/jobs/{job}", headers=reader), 403, "forbidden")
        refused(client.get(f"/jobs/{job}", headers=elsewhere), 403, "forbidden_domain")
        assert client.get(f"/jobs/{job}", headers=boss).status_code == 200
        refused(client.post("/domains/office/sync", headers=reader), 403, "forbidden")
        refused(client.post("/domains/office/sync", headers=boss), 422, "no_images_dir")
        refused(client.post("/domains/office/people/amy", headers=reader), 403, "forbidden")
        refused(client.get("/domains/office/people", headers=elsewhere), 403, "forbidden_domain")
        assert client.get("/domains/office/people", headers=reader).status_code == 200
