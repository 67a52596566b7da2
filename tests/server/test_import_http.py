"""A gallery of DeepFace sent over HTTP."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from test_api import checked, refused
from test_filling import followed

from matchers.service import Stores, open_stores
from models.settings import Settings
from runtime.engine import FaceEngine
from server.app import create_app

NAME = "ds_model_sface_detector_retinaface_aligned_normalization_base_expand_0.pkl"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Settings:
    folder = tmp_path_factory.mktemp("import")
    return Settings(_env_file=None, data_dir=folder, models_dir=models_dir, vector_db_enabled=False, upload_timeout=1.0)


@pytest.fixture(scope="module")
def opened(settings: Settings, engine: FaceEngine) -> Iterator[Stores]:
    with open_stores(settings, engine.embedder_card, engine.detector_card.name) as stores:
        yield stores


@pytest.fixture(scope="module")
def service(settings: Settings, engine: FaceEngine, opened: Stores, serve: Any) -> Iterator[httpx.Client]:
    with serve(create_app(settings, engine, opened)) as client:
        yield client


def gallery(count: int = 4, dimension: int = 128) -> bytes:
    rows = np.random.default_rng(1).normal(size=(count, dimension)).tolist()
    return pickle.dumps(
        [{"identity": f"/srv/x/p{number // 2}/{number % 2}.jpg", "embedding": row} for number, row in enumerate(rows)]
    )


def sent(data: bytes, name: str = NAME) -> dict[str, Any]:
    return {"gallery": (name, data, "application/octet-stream")}


def ended(client: httpx.Client, answer: httpx.Response) -> tuple[str, Any]:
    assert answer.status_code == 202, answer.text
    job = checked(answer, "JobAnswer")["job"]
    assert job["kind"] == "import"
    *progress, last = followed(client, job["id"])
    told = [event["done"] for name, event in progress if name == "progress"]
    assert told == sorted(told) and all(done <= 100 for done in told)
    return last


def test_a_gallery_is_brought_in_by_a_job_and_leaves_no_file(
    service: httpx.Client, opened: Stores, settings: Settings
) -> None:
    name, data = ended(service, service.post("/domains/new/import", files=sent(gallery())))
    assert name == "done"
    report = data["report"]
    assert {key: report[key] for key in ("file", "format", "faces", "people", "added", "unchanged", "complete")} == {
        "file": NAME, "format": "pkl", "faces": 4, "people": 2, "added": 4, "unchanged": 0, "complete": True,
    }  # fmt: skip
    assert len(report["warnings"]) == 1 and "five points" in report["warnings"][0]
    assert opened.pkl.count("new") == 4
    _, data = ended(service, service.post("/domains/new/import", files=sent(gallery())))
    assert (data["report"]["added"], data["report"]["unchanged"]) == (0, 4)
    assert list((settings.data_dir / "uploads").iterdir()) == []
    assert not [link for link in open_files() if "uploads" in link]


def open_files() -> list[str]:
    folder = Path("/proc/self/fd")
    links = []
    for entry in folder.iterdir():
        try:
            links.append(str(entry.readlink()))
        except OSError:
            continue
    return links


def test_what_does_not_fit_is_refused_at_once_and_may_be_accepted(service: httpx.Client, opened: Stores) -> None:
    other = NAME.replace("retinaface", "opencv")
    answer = service.post("/domains/other/import", files=sent(gallery(), other))
    assert "DETECTOR" in refused(answer, 422, "gallery_mismatch")
    assert answer.json()["error"]["differs"] == ["detector"]
    name, data = ended(service, service.post("/domains/other/import?accept=detector", files=sent(gallery(), other)))
    assert (name, data["report"]["faces"]) == ("done", 4)
    assert any("It was accepted." in text for text in data["report"]["warnings"])
    refused(service.post("/domains/other/import?accept=anything", files=sent(gallery())), 422, "invalid_accept")
    name, data = ended(service, service.post("/domains/third/import", files=sent(gallery(dimension=512), "g.pkl")))
    assert (name, data["error"]["code"]) == ("failed", "gallery_mismatch")
    assert opened.pkl.count("third") == 0


def test_a_root_may_be_named(service: httpx.Client, opened: Stores) -> None:
    _, data = ended(service, service.post("/domains/root/import?root=/srv", files=sent(gallery())))
    assert {face.source for face in opened.pkl.faces("root", "x")} == {
        "x/p0/0.jpg", "x/p0/1.jpg", "x/p1/0.jpg", "x/p1/1.jpg",
    }  # fmt: skip
    assert data["report"]["people"] == 1
    _, data = ended(service, service.post("/domains/root/import?root=/srv/x/p0&root=/srv/x", files=sent(gallery())))
    assert {face.source for face in opened.pkl.faces("root")} >= {"0.jpg", "1.jpg", "p1/0.jpg", "p1/1.jpg"}


def test_hostile_and_broken_files_end_the_job_with_what_is_wrong(
    service: httpx.Client, opened: Stores, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    hostile = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    for data in (hostile, gallery()[:1000], b"", pickle.dumps([])):
        name, told = ended(service, service.post("/domains/bad/import", files=sent(data)))
        assert (name, told["error"]["code"]) == ("failed", "gallery_unreadable"), told
    assert not canary.exists()
    assert "bad" not in opened.pkl.domains()


def test_requests_without_a_usable_gallery_are_refused(service: httpx.Client) -> None:
    path = "/domains/new/import"
    refused(service.post(path, files={"image": ("a.jpg", b"x")}), 400, "missing_gallery")
    refused(service.post(path, files=[("gallery", (NAME, b"x")), ("gallery", (NAME, b"x"))]), 400, "too_many_galleries")
    refused(service.post(path, files=sent(b"x", "picture.jpg")), 422, "unknown_format")
    refused(service.post(path, content=b"x"), 415, "not_multipart")
    refused(service.post("/domains/-/import", files=sent(b"x")), 422, "invalid_name")
    endless = {"Content-Type": f"multipart/form-data; boundary={'b' * 300}"}
    refused(service.post(path, content=b"--b", headers=endless), 400, "invalid_multipart")
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="gallery"; filename="g.pkl"\r\n'
    for body in (part + b"\r\nhalf", part + b"X-Long: " + b"y" * 20_000, b"--b\r\n\0bad", b"nothing"):
        answer = service.post(path, content=body, headers=kind)
        assert (answer.status_code, answer.json()["error"]["code"]) in {
            (400, "missing_gallery"), (400, "invalid_multipart"),
        }, answer.text  # fmt: skip
    declared = {**kind, "Content-Length": str(2**40)}
    with socket.create_connection((service.base_url.host, service.base_url.port)) as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in declared.items())
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())
        assert b"413" in connection.recv(4096)


def test_a_client_that_stops_sending_is_told(service: httpx.Client) -> None:
    head = "Host: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n--b\r\n"
    with socket.create_connection((service.base_url.host, service.base_url.port)) as connection:
        connection.settimeout(60)
        connection.sendall(f"POST /domains/new/import HTTP/1.1\r\n{head}".encode())
        assert b"408" in connection.recv(4096)


def test_a_job_on_the_domain_keeps_the_next_one_out(service: httpx.Client, settings: Settings) -> None:
    from matchers.jobs import JobFolder

    held = JobFolder(settings.data_dir / "jobs").start("new", "sync")
    refused(service.post("/domains/new/import", files=sent(gallery())), 409, "job_running")
    held.fail("no", "because")
    held.close()
    assert not [link for link in open_files() if "uploads" in link]
