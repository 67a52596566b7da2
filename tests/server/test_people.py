"""People over HTTP: enrolled, listed, renamed and deleted in both stores."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psycopg
import pytest
from PIL import Image
from psycopg.conninfo import make_conninfo
from test_api import checked, refused

from matchers.journal import pending
from matchers.service import Stores, open_stores
from models.settings import Settings
from runtime.engine import FaceEngine
from server.app import create_app

FACES = "/domains/office/people"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, postgres: str) -> Settings:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE people")
    return Settings(
        _env_file=None,
        data_dir=tmp_path_factory.mktemp("people"),
        models_dir=models_dir,
        database_url=make_conninfo(postgres, dbname="people"),
    )


@pytest.fixture(scope="module")
def opened(settings: Settings, engine: FaceEngine) -> Iterator[Stores]:
    with open_stores(settings, engine.embedder_card, engine.detector_card.name) as stores:
        yield stores


@pytest.fixture(scope="module")
def service(settings: Settings, engine: FaceEngine, opened: Stores, serve: Any) -> Iterator[httpx.Client]:
    with serve(create_app(settings, engine, opened)) as client:
        yield client


@pytest.fixture(autouse=True)
def office(service: httpx.Client) -> Iterator[None]:
    """An empty domain for each test."""
    assert service.post("/domains/office").status_code == 201
    yield
    assert service.delete("/domains/office").json()["pending"] == []


def files(*pictures: bytes, field: str = "images") -> list[tuple[str, tuple[str, bytes]]]:
    return [(field, (f"{number}.png", data)) for number, data in enumerate(pictures)]


def enrol(client: httpx.Client, person: str, *pictures: bytes, status: int = 201, allow: str = "") -> Any:
    answer = client.post(f"{FACES}/{person}", params={"allow": allow} if allow else {}, files=files(*pictures))
    assert answer.status_code == status, answer.text
    return checked(answer, "Enrolment") if status < 400 else answer.json()["error"]["refused"]


def changed(picture: bytes, change: Any) -> bytes:
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    return bytes(cv2.imencode(".png", change(image))[1])


def faces_in(stores: Stores) -> list[list[tuple[str, str]]]:
    assert stores.pgvector is not None
    return [[(face.person, face.source) for face in store.faces("office")] for store in (stores.pkl, stores.pgvector)]


def test_pictures_are_enrolled_in_both_stores_and_found_at_once(
    service: httpx.Client, opened: Stores, portraits: list[bytes]
) -> None:
    body = enrol(service, "amy", portraits[0])
    assert (body["person"], body["refused"], body["pending"]) == ("amy", [], [])
    (one,) = body["enrolled"]
    assert (one["file"], one["warnings"]) == ("0.png", [])
    enrol(service, "bob", portraits[1])
    person = checked(service.get(f"{FACES}/amy"), "Person")
    assert person["faces"] == [{**one["face"], "stores": ["pkl", "pgvector"], "thumbnail": True}]
    ours, theirs = faces_in(opened)
    assert ours == theirs == [("amy", one["face"]["source"]), ("bob", ours[1][1])]
    answer = service.post("/analyze?domain=office", files={"image": portraits[0]}).json()
    assert answer["mode"] == "dual"
    assert answer["recognized_faces"] == ["amy"]
    assert answer["comparison"]["top1_match"] is True


def test_the_list_is_sorted_searched_and_cut(service: httpx.Client, portraits: list[bytes]) -> None:
    for name, data in zip(("Željko", "bob", "Ana", "ana-2"), portraits, strict=False):
        enrol(service, name, data)
    body = checked(service.get(FACES), "People")
    assert [row["person"] for row in body["people"]] == ["Ana", "ana-2", "bob", "Željko"]
    assert all(row["faces"] == len(row["face_ids"]) == 1 for row in body["people"])
    assert all(row["thumbnail"] == row["face_ids"][0] for row in body["people"])
    found = checked(service.get(FACES, params={"search": "zel"}), "People")
    assert (found["total"], found["people"][0]["person"]) == (1, "Željko")
    part = service.get(FACES, params={"limit": 2, "offset": 1}).json()
    assert (part["total"], [row["person"] for row in part["people"]]) == (4, ["ana-2", "bob"])
    refused(service.get(FACES, params={"limit": "many"}), 422, "invalid_number")
    domain = checked(service.get("/domains/office"), "Domain")
    assert (domain["people"], domain["faces"], domain["threshold"]) == (4, {"pkl": 4, "pgvector": 4}, 0.6)


def test_what_is_no_single_usable_face_is_refused_by_itself(
    service: httpx.Client, portraits: list[bytes], group_picture: Path
) -> None:
    blurred = changed(portraits[1], lambda image: cv2.GaussianBlur(image, (0, 0), 6))
    tiny = changed(portraits[1], lambda image: cv2.resize(image, None, fx=0.24, fy=0.24, interpolation=cv2.INTER_AREA))
    wall = np.full((200, 200, 3), 90, np.uint8)
    pictures = [
        portraits[0],
        b"this is no picture",
        bytes(cv2.imencode(".png", wall)[1]),
        group_picture.read_bytes(),
        blurred,
        tiny,
    ]
    body = enrol(service, "amy", *pictures)
    assert [one["file"] for one in body["enrolled"]] == ["0.png"]
    assert [(one["file"], one["code"]) for one in body["refused"]] == [
        ("1.png", "unsupported_format"),
        ("2.png", "no_face"),
        ("3.png", "several_faces"),
        ("4.png", "face_blurred"),
        ("5.png", "face_too_small"),
    ]
    assert all(one["message"] for one in body["refused"])
    left_out = enrol(service, "bob", blurred, status=422)
    assert [one["code"] for one in left_out] == ["face_blurred"]
    refused(service.get(f"{FACES}/bob"), 404, "unknown_person")
    allowed = enrol(service, "bob", blurred, allow="face_blurred")
    assert "face_blurred" in [warning["code"] for warning in allowed["enrolled"][0]["warnings"]]


def test_copies_and_other_peoples_faces_are_refused_unless_allowed(
    service: httpx.Client, portraits: list[bytes]
) -> None:
    copy = io.BytesIO()
    Image.open(io.BytesIO(portraits[0])).convert("RGB").save(copy, "JPEG", quality=90)
    first = enrol(service, "amy", portraits[0], portraits[0], copy.getvalue())
    assert [one["file"] for one in first["enrolled"]] == ["0.png"]
    assert [(one["file"], one["code"]) for one in first["refused"]] == [("1.png", "duplicate"), ("2.png", "duplicate")]
    again = enrol(service, "amy", copy.getvalue(), allow="duplicate", status=200)
    assert [warning["code"] for warning in again["enrolled"][0]["warnings"]] == ["duplicate"]
    (lookalike,) = enrol(service, "eve", portraits[0], status=422)
    assert lookalike["code"] == "lookalike"
    assert "amy" in lookalike["message"]
    assert lookalike["person"] == "amy"
    twin = enrol(service, "eve", portraits[0], allow="lookalike,duplicate")
    assert [warning["code"] for warning in twin["enrolled"][0]["warnings"]] == ["lookalike"]
    odd = enrol(service, "amy", portraits[1], status=200)
    assert [warning["code"] for warning in odd["enrolled"][0]["warnings"]] == ["unlike"]
    refused(service.post(f"{FACES}/amy?allow=everything", files=files(portraits[2])), 422, "invalid_allow")


def test_renaming_moves_faces_and_thumbnails(service: httpx.Client, opened: Stores, portraits: list[bytes]) -> None:
    enrol(service, "amy", portraits[0])
    enrol(service, "bob", portraits[1])
    before = service.get(f"{FACES}/amy").json()["faces"][0]
    picture = service.get(f"{FACES}/amy/faces/{before['id']}/thumbnail")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(picture.content)).size == (112, 112)
    body = checked(service.patch(f"{FACES}/amy", json={"person": "Amélie"}), "Person")
    assert body["person"] == "Amélie"
    after = service.get(f"{FACES}/Amélie/faces/{body['faces'][0]['id']}/thumbnail")
    assert after.content == picture.content
    refused(service.get(f"{FACES}/amy"), 404, "unknown_person")
    refused(service.patch(f"{FACES}/Amélie", json={"person": "bob"}), 409, "person_exists")
    merged = checked(service.patch(f"{FACES}/Amélie", json={"person": "bob", "merge": True}), "Person")
    assert len(merged["faces"]) == 2
    ours, theirs = faces_in(opened)
    assert ours == theirs
    assert {person for person, _ in ours} == {"bob"}


@pytest.mark.parametrize("body", [{}, {"person": 1}, {"person": "x", "merge": "yes"}, {"person": "x", "more": 1}, []])
def test_a_wrong_body_is_422(service: httpx.Client, body: Any) -> None:
    refused(service.patch(f"{FACES}/amy", json=body), 422, "invalid_body")
    refused(service.patch(f"{FACES}/amy", content=b"{"), 400, "invalid_json")


def test_a_face_and_a_person_are_deleted_with_their_thumbnails(
    service: httpx.Client, opened: Stores, portraits: list[bytes]
) -> None:
    enrol(service, "amy", portraits[0], portraits[1])
    enrol(service, "bob", portraits[2])
    first, second = service.get(f"{FACES}/amy").json()["faces"]
    removed = checked(service.delete(f"{FACES}/amy/faces/{first['id']}"), "Removed")
    assert (removed["removed"], removed["pending"]) == (1, [])
    refused(service.delete(f"{FACES}/amy/faces/{first['id']}"), 404, "unknown_face")
    assert [face["id"] for face in service.get(f"{FACES}/amy").json()["faces"]] == [second["id"]]
    assert checked(service.delete(f"{FACES}/amy"), "Removed")["removed"] == 1
    refused(service.delete(f"{FACES}/amy"), 404, "unknown_person")
    ours, theirs = faces_in(opened)
    assert ours == theirs
    assert {person for person, _ in ours} == {"bob"}
    assert len(list((opened.data_dir / "thumbnails" / "office").iterdir())) == 1
    assert pending(opened) == {}


def test_names_and_domains_that_are_none(service: httpx.Client, portraits: list[bytes]) -> None:
    refused(service.post(f"{FACES}/%20amy", files=files(portraits[0])), 422, "invalid_name")
    refused(service.post("/domains/..%2Fx/people/amy", files=files(portraits[0])), 404, "not_found")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/people"), ("GET", "/people/amy")):
        refused(service.request(method, f"/domains/nowhere{path}"), 404, "unknown_domain")
    refused(service.post("/domains/nowhere/people/amy", files=files(portraits[0])), 404, "unknown_domain")
    refused(service.post(f"{FACES}/amy", files=files(portraits[0], field="photo")), 400, "missing_image")
    refused(service.post(f"{FACES}/amy", files=files(*[b"x"] * 51)), 400, "too_many_images")
    assert service.post("/domains/office").status_code == 200


def test_differences_are_listed_and_mended(service: httpx.Client, opened: Stores, portraits: list[bytes]) -> None:
    enrol(service, "amy", portraits[0])
    enrol(service, "bob", portraits[1])
    assert opened.pgvector is not None
    opened.pgvector.apply("office", (), [face.source for face in opened.pgvector.faces("office", "amy")])
    body = checked(service.get("/domains/office/differences"), "Differences")
    assert (body["total"], body["pending"]) == (1, 0)
    assert [(one["person"], one["pkl"], one["pgvector"]) for one in body["differences"]] == [("amy", True, False)]
    assert body["by_person"] == [{"person": "amy", "only_in_pkl": 1}]
    assert service.get(f"{FACES}/amy").json()["faces"][0]["stores"] == ["pkl"]
    done = checked(service.post("/domains/office/repair", json={"direction": "pkl_to_pgvector"}), "Repair")
    assert (done["copied"], done["removed"], done["dry_run"]) == (1, 0, False)
    assert service.get("/domains/office/differences").json()["total"] == 0
    refused(service.post("/domains/office/repair", json={"direction": "up"}), 422, "invalid_body")
