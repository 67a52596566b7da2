"""From PKL to pgvector in an afternoon, and back: a whole domain moves while people ask, and nobody gets an error."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from matchers.dual import PGVECTOR_FAILED
from matchers.embedded import EmbeddedPostgres

DOMAIN = "slovenia"
PEOPLE = ("ana", "bojan", "cilka", "dragan", "eva", "franc")
PICTURES = 100
WORKERS = 2
# Requests in a row that say the same, before all workers count as agreed.
AGREED = 8
PATIENCE = 60.0
ASKED_AT_ONCE = 3

Matchers = Callable[..., str]


@dataclass(slots=True)
class Story:
    """A domain with people who ask about it all the time; what they were answered: status, mode, names."""

    client: httpx.Client
    pictures: list[tuple[str, bytes]]
    answers: list[tuple[int, str, tuple[str, ...]]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def ask(self, number: int) -> str:
        """The mode that the answer to a picture says; status and name are kept for the end of the story."""
        name, data = self.pictures[number % len(self.pictures)]
        answer = self.client.post("/analyze", params={"domain": DOMAIN}, files={"image": data})
        body = answer.json()
        mode = str(body.get("mode", ""))
        self.answers.append((answer.status_code, mode, tuple(body.get("recognized_faces", ()))))
        if self.answers[-1][2] != (name,):
            self.wrong.append(f"{name}: {answer.status_code} {body}")
        return mode

    def until(self, mode: str) -> None:
        """Ask until every worker answers in ``mode``."""
        deadline = time.monotonic() + PATIENCE
        agreed = 0
        while agreed < AGREED:
            assert time.monotonic() < deadline, f"the domain is not in {mode!r}: {self.answers[-AGREED:]}"
            agreed = agreed + 1 if self.ask(agreed) == mode else 0

    @contextmanager
    def asked_all_the_time(self) -> Iterator[None]:
        done = threading.Event()

        def client() -> None:
            number = 0
            while not done.wait(0.25):
                self.ask(number)
                number += 1

        thread = threading.Thread(target=client)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def get(self, path: str) -> Any:
        answer = self.client.get(f"/domains/{DOMAIN}{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def steps(self) -> list[tuple[str, str]]:
        """The changes of mode, the newest first."""
        return [(change["before"], change["after"]) for change in self.get("/mode/history")["changes"]]

    def put_mode(self, mode: str) -> httpx.Response:
        return self.client.put(f"/domains/{DOMAIN}/mode", json={"mode": mode})


@pytest.fixture
def gallery(portraits: list[bytes], run_matchers: Matchers, tmp_path: Path) -> Path:
    """A gallery file as DeepFace writes it."""
    for name, data in zip(PEOPLE, portraits, strict=True):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(data)
    settings = {"DATA_DIR": str(tmp_path / "elsewhere"), "VECTOR_DB_ENABLED": "false"}
    run_matchers("sync", "--domain", DOMAIN, "--images", str(tmp_path / "pictures"), **settings)
    return next((tmp_path / "elsewhere" / "galleries" / DOMAIN).glob("ds_model_*.pkl"))


@pytest.fixture
def pictures(portraits: list[bytes]) -> list[tuple[str, bytes]]:
    """Names and JPEG files, each a little other than the enrolled picture and than all others."""
    images = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in portraits]
    found = []
    for number in range(PICTURES):
        image = cv2.convertScaleAbs(images[number % len(images)], alpha=1 - number / 500, beta=number % 7)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 95 - number % 20]
        found.append((PEOPLE[number % len(PEOPLE)], cv2.imencode(".jpg", image, quality)[1].tobytes()))
    return found


@pytest.fixture
def database(furnished: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that stops and starts when the story says so.

    Its folder has a short name: with a longer one its socket would be in another folder after each start.
    """
    with EmbeddedPostgres(furnished(tmp_path_factory.mktemp("cluster"))) as embedded:
        yield embedded


def test_a_domain_moves_from_pkl_to_pgvector_and_back(
    start: Any,
    run_matchers: Matchers,
    gallery: Path,
    pictures: list[tuple[str, bytes]],
    database: EmbeddedPostgres,
) -> None:
    settings = {
        "DATA_DIR": str(gallery.with_name("data")),
        "DATABASE_URL": database.start(),
        "VECTOR_DB_DUAL_MODE": "false",
        "GATE_COMPARISONS": str(PICTURES),
    }
    imported = json.loads(run_matchers("import", "--domain", DOMAIN, str(gallery), "--json", **settings))
    assert imported["complete"] is True
    with start("--workers", str(WORKERS), **settings) as service:
        story = Story(service.client, pictures)
        with story.asked_all_the_time():
            _tell(story, run_matchers, settings, database)
        assert service.process.poll() is None
    assert {status for status, _, _ in story.answers} == {200}
    assert not story.wrong
    assert len(story.answers) > PICTURES


def _tell(story: Story, run_matchers: Matchers, settings: dict[str, str], database: EmbeddedPostgres) -> None:
    story.until("pkl_only")
    assert story.get("/mode")["default"] is True
    refused = story.put_mode("pgvector_only")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "gates_closed")

    run_matchers("mode", "--domain", DOMAIN, "dual", **settings)
    story.until("dual")
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        assert set(pool.map(story.ask, range(PICTURES))) == {"dual"}
    _until(lambda: story.get("/comparisons")["summary"]["comparisons"] >= PICTURES)
    report = json.loads(run_matchers("report", "--domain", DOMAIN, "--json", **settings))
    assert report["holds"] is True
    assert (report["summary"]["top1_rate"], report["summary"]["failures"]) == (1.0, 0)
    assert report["summary"]["top5_overlap"] == 1.0

    run_matchers("mode", "--domain", DOMAIN, "pgvector_only", **settings)
    story.until("pgvector_only")
    database.stop()
    story.until(PGVECTOR_FAILED)
    assert story.get("/mode")["mode"] == "pgvector_only"
    database.start()
    story.until("pgvector_only")
    _until(lambda: story.steps()[0] == (PGVECTOR_FAILED, "pgvector_only"))

    assert story.put_mode("pkl_only").status_code == 200
    story.until("pkl_only")
    assert story.steps() == [
        ("pgvector_only", "pkl_only"),
        (PGVECTOR_FAILED, "pgvector_only"),
        ("pgvector_only", PGVECTOR_FAILED),
        ("dual", "pgvector_only"),
        ("pkl_only", "dual"),
    ]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.2)
