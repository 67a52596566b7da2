"""Whoever is deleted is gone: the bytes of all that lies under ``DATA_DIR`` are searched, PostgreSQL's files too."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchers.base import GalleryFace
from matchers.gallery_names import gallery_file
from matchers.matrix_file import open_matrix
from matchers.records import read_gallery, write_gallery

NAME, RENAMED = "Zoltan-Needle", "Ysolde-Haystack"
DOMAIN = "clinic"
GALLERY = gallery_file("sface", "retinaface")
CROWD = 2001
# Comparisons that wait for PostgreSQL, and a worker's memory, are done with after seconds.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Home:
    """A running server and its folders."""

    service: Any
    data_dir: Path
    images_dir: Path

    def people(self, person: str = "") -> str:
        return f"/domains/{DOMAIN}/people" + (f"/{person}" if person else "")

    def enrol(self, person: str, *pictures: bytes) -> None:
        files = [("images", (f"{number}.png", data)) for number, data in enumerate(pictures)]
        answer = self.service.client.post(self.people(person), files=files)
        assert answer.status_code in (200, 201), answer.text

    def delete(self, address: str) -> None:
        answer = self.service.client.delete(address)
        assert (answer.status_code, answer.json().get("pending", [])) == (200, []), answer.text

    def faces(self, person: str) -> list[GalleryFace]:
        (gallery,) = (self.data_dir / "galleries" / DOMAIN).glob("*.pkl")
        return [face for face in read_gallery(gallery).faces if face.person == person]

    def is_rid_of(self, needles: dict[str, bytes]) -> None:
        deadline = time.monotonic() + PATIENCE
        while found := self.traces(needles):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    def traces(self, needles: dict[str, bytes]) -> set[tuple[str, str]]:
        """What of ``needles`` is found, and below which folder or file of ``DATA_DIR``."""
        found = set()
        for path in self.data_dir.rglob("*"):
            where = "/".join(path.relative_to(self.data_dir).parts[:3])
            found |= {(kind, where) for kind, needle in needles.items() if needle in bytes(path)}
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                found |= {(kind, where) for kind, needle in needles.items() if needle in content}
        return found


def needles(face: GalleryFace, thumbnail: bytes) -> dict[str, bytes]:
    """A face as any store, journal or sidecar may hold it."""
    some = [float(number) for number in face.embedding[8:14]]
    return {
        "name": face.person.encode(),
        "digest": face.digest.encode(),
        "thumbnail": thumbnail[len(thumbnail) // 2 :][:64],
        "float32": struct.pack("<6f", *some),
        "float32, network order": struct.pack(">6f", *some),
        "float64": struct.pack("<6d", *some),
        "float64 of a pickle": b"G".join(struct.pack(">d", number) for number in some),
        "float16": np.asarray(some, np.float16).tobytes(),
        "base64": base64.b64encode(face.embedding.astype("<f4").tobytes())[64:96],
    }


@pytest.fixture(scope="module")
def home(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    data_dir, images_dir = tmp_path_factory.mktemp("personal"), tmp_path_factory.mktemp("images")
    with start(DATA_DIR=str(data_dir), IMAGES_DIR=str(images_dir)) as service:
        yield Home(service, data_dir, images_dir)


@pytest.fixture
def filled(home: Home, portraits: list[bytes]) -> Iterator[tuple[Home, dict[str, bytes]]]:
    """The person and somebody else are enrolled, were looked for, and stand in the report of a job."""
    home.service.client.delete(f"/domains/{DOMAIN}")
    assert home.service.client.post(f"/domains/{DOMAIN}").status_code == 201
    home.enrol(NAME, portraits[0])
    home.enrol("somebody", portraits[1])
    broken = home.images_dir / DOMAIN / NAME / "broken.jpg"
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_bytes(b"no picture")
    job = home.service.client.post(f"/domains/{DOMAIN}/sync").json()["job"]["id"]
    eventually(lambda: home.service.client.get(f"/jobs/{job}").json()["job"]["state"] == "done")
    for _ in range(3):
        assert home.service.analyze(portraits[0], DOMAIN)["recognized_faces"] == [NAME]
    face = home.faces(NAME)[0]
    thumbnail = home.service.client.get(f"{home.people(NAME)}/faces/{face.id}/thumbnail").content
    looked_for = needles(face, thumbnail)
    expected = {"name", "digest", "thumbnail", "float32", "float64 of a pickle"}
    eventually(lambda: expected <= {kind for kind, _ in home.traces(looked_for)})
    yield home, looked_for


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def test_a_person_who_is_deleted_leaves_no_trace(filled: tuple[Home, dict[str, bytes]], portraits: list[bytes]) -> None:
    home, looked_for = filled
    home.delete(home.people(NAME))
    home.is_rid_of(looked_for)
    assert home.service.analyze(portraits[0], DOMAIN)["recognized_faces"] == []
    assert home.service.analyze(portraits[1], DOMAIN)["recognized_faces"] == ["somebody"]


def test_a_face_that_is_deleted_leaves_no_trace_but_its_persons_name(
    filled: tuple[Home, dict[str, bytes]], portraits: list[bytes]
) -> None:
    home, looked_for = filled
    first = home.faces(NAME)[0]
    home.enrol(NAME, portraits[2])
    del looked_for["name"]
    home.delete(f"{home.people(NAME)}/faces/{first.id}")
    home.is_rid_of(looked_for)
    assert len(home.faces(NAME)) == 1


def test_a_new_name_takes_the_place_of_the_old_one_everywhere(filled: tuple[Home, dict[str, bytes]]) -> None:
    home, looked_for = filled
    assert home.service.client.patch(home.people(NAME), json={"person": RENAMED}).status_code == 200
    home.is_rid_of({"name": looked_for["name"]})
    assert [face.person for face in home.faces(RENAMED)] == [RENAMED]


def test_a_domain_that_is_deleted_leaves_no_trace(filled: tuple[Home, dict[str, bytes]]) -> None:
    home, looked_for = filled
    home.delete(f"/domains/{DOMAIN}")
    home.is_rid_of(looked_for)


def test_a_person_of_a_large_gallery_leaves_no_trace_in_the_file_beside_it(home: Home, tmp_path: Path) -> None:
    """Galleries of so many faces are laid out for searching in a file beside the gallery's own."""
    random = np.random.default_rng(5)
    rows = random.normal(size=(CROWD, 128)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    people = [f"extra-{number}" for number in range(CROWD - 1)] + [NAME]
    faces = [
        GalleryFace(person, f"{person}/1.jpg", random.bytes(20).hex(), row, (1, 2, 3, 4))
        for person, row in zip(people, rows, strict=True)
    ]
    write_gallery(tmp_path / "crowd.pkl", faces)
    client = home.service.client
    files = {"gallery": (GALLERY, (tmp_path / "crowd.pkl").read_bytes())}
    job = client.post("/domains/crowd/import", files=files).json()["job"]["id"]
    eventually(lambda: client.get(f"/jobs/{job}").json()["job"]["state"] == "done")
    matrix = home.data_dir / "galleries" / "crowd" / f"{GALLERY}.matrix"
    looked_for = needles(faces[-1], b"")
    del looked_for["thumbnail"]
    # Eight bits for each number, made while searching is prepared.
    codes = open_matrix(matrix.with_suffix(""))
    assert codes is not None
    place = next(number for number in range(CROWD) if codes.face(number).person == NAME)
    looked_for["int8"] = codes.codes.values[place].tobytes()
    del codes
    content = matrix.read_bytes()
    assert {kind for kind, needle in looked_for.items() if needle in content} == {"name", "digest", "float32", "int8"}
    home.delete(f"/domains/crowd/people/{NAME}")
    home.is_rid_of(looked_for)
    assert client.get("/domains/crowd").json()["people"] == CROWD - 1
    assert matrix.exists()
    home.delete("/domains/crowd")
    assert not matrix.exists()


def test_the_log_names_nobody(filled: tuple[Home, dict[str, bytes]]) -> None:
    home, _ = filled
    log = home.service.log.read_text()
    assert f"GET /domains/{DOMAIN}/people/- 200" in log or f"POST /domains/{DOMAIN}/people/- 201" in log
    assert NAME not in log
    assert "somebody" not in log
