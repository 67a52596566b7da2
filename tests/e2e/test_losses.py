"""Workers killed and disks full while faces are enrolled: what was promised is there, the rest is whole or absent."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
import pytest

KILLS = 3
PATIENCE = 60.0
DOMAIN = "office"
COPIES = 8


@dataclass(frozen=True, slots=True)
class Office:
    """Two workers over one folder."""

    service: Any
    images_dir: Path

    def workers(self) -> list[psutil.Process]:
        """Those that serve."""
        lines = [json.loads(line) for line in self.service.log.read_text().splitlines()]
        pids = {line["pid"] for line in lines if line.get("message") == "serving"}
        return [psutil.Process(pid) for pid in sorted(pids) if psutil.pid_exists(pid)]

    def request(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """Over a connection of its own; None when the worker behind it died."""
        try:
            return httpx.request(method, f"{self.service.client.base_url}{path}", timeout=PATIENCE, **options)
        except httpx.TransportError:
            return None

    def enrol(self, person: str, *pictures: bytes) -> int:
        """The status; 0 when no answer came."""
        files = [("images", (f"{number}.png", data)) for number, data in enumerate(pictures)]
        path = f"/domains/{DOMAIN}/people/{person}?allow=duplicate,lookalike"
        answer = self.request("POST", path, files=files)
        return 0 if answer is None else answer.status_code

    def get(self, path: str) -> Any:
        def asked() -> httpx.Response | None:
            return self.request("GET", path)

        return eventually(asked).json()

    def people(self) -> dict[str, int]:
        return {one["person"]: one["faces"] for one in self.get(f"/domains/{DOMAIN}/people?limit=1000")["people"]}

    def stores_are_equal(self) -> bool:
        found = self.get(f"/domains/{DOMAIN}/differences")
        return (found["total"], found["pending"]) == (0, 0)


def eventually(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def office(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    images_dir = tmp_path_factory.mktemp("images")
    settings = {"DATA_DIR": str(tmp_path_factory.mktemp("losses")), "IMAGES_DIR": str(images_dir)}
    # On the full disk Python would leave modules that it compiles just then cut off, for good.
    with start("--workers", "2", LOG_FORMAT="json", PYTHONDONTWRITEBYTECODE="1", **settings) as service:
        opened = Office(service, images_dir)
        eventually(lambda: len(opened.workers()) == 2)
        yield opened


@pytest.fixture(autouse=True)
def empty(office: Office) -> None:
    office.request("DELETE", f"/domains/{DOMAIN}")
    answer = eventually(lambda: office.request("POST", f"/domains/{DOMAIN}"))
    assert answer.status_code == 201


def test_workers_are_killed_while_people_are_enrolled(office: Office, portraits: list[bytes]) -> None:
    promised: set[str] = set()
    asked: list[str] = []
    done = threading.Event()

    def client(number: int) -> None:
        while not done.is_set():
            person = f"p{number}-{len(asked)}"
            asked.append(person)
            if office.enrol(person, portraits[number], portraits[number + 1]) == 201:
                promised.add(person)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(3)]
    for thread in clients:
        thread.start()
    moment = random.Random(3)
    try:
        for kill in range(KILLS):
            eventually(lambda enough=kill: len(promised) > 2 * enough)
            time.sleep(moment.uniform(0, 0.3))
            worker = moment.choice(office.workers())
            worker.kill()
            # Until it is gone it would count as one of the two.
            worker.wait(PATIENCE)
            eventually(lambda: len(office.workers()) == 2)
    finally:
        done.set()
        for thread in clients:
            thread.join()
    eventually(office.stores_are_equal)
    found = office.people()
    assert promised <= found.keys() <= set(asked)
    assert set(found.values()) == {2}, "half of a person is there"


def test_a_worker_that_dies_while_it_is_asked_whether_it_lives_is_replaced_at_once(office: Office) -> None:
    worker = office.workers()[0]
    worker.suspend()
    # The supervisor asks twice a second, and then waits 30 s for an answer.
    time.sleep(2)
    worker.kill()
    deadline = time.monotonic() + 20
    while len(set(office.workers()) - {worker}) < 2:
        assert time.monotonic() < deadline, "nobody took the place of a worker that was killed"
        time.sleep(0.05)


def test_the_worker_of_a_job_is_killed(office: Office, portraits: list[bytes]) -> None:
    for number, data in enumerate(portraits):
        folder = office.images_dir / DOMAIN / f"person-{number}"
        folder.mkdir(parents=True)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        for copy in range(COPIES):
            cv2.imwrite(str(folder / f"{copy}.png"), cv2.convertScaleAbs(image, alpha=1 - copy / 50))
    job = office.request("POST", f"/domains/{DOMAIN}/sync").json()["job"]["id"]  # type: ignore[union-attr]
    eventually(lambda: office.get(f"/jobs/{job}")["job"]["done"] >= 2)
    for worker in office.workers():
        worker.kill()
    eventually(lambda: len(office.workers()) == 2)
    lost = office.get(f"/jobs/{job}")["job"]
    assert (lost["state"], lost["error"]["code"]) == ("failed", "job_lost")
    again = office.request("POST", f"/domains/{DOMAIN}/sync").json()["job"]["id"]  # type: ignore[union-attr]
    eventually(lambda: office.get(f"/jobs/{again}")["job"]["state"] == "done")
    assert office.stores_are_equal()
    assert office.people() == {f"person-{number}": COPIES for number in range(len(portraits))}


def test_the_disk_is_full(office: Office, portraits: list[bytes]) -> None:
    """Files may not grow any more: a clear answer, nothing changed, and all is well once there is room."""
    assert office.enrol("amy", portraits[0]) == 201
    before = office.people()
    with full_disk(office.workers()):
        answer = office.request("POST", f"/domains/{DOMAIN}/people/bob", files={"images": ("x.png", portraits[1])})
        assert answer is not None
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert office.people() == before
        analysed = office.request("POST", f"/analyze?domain={DOMAIN}", files={"image": portraits[0]})
        assert analysed is not None
        assert analysed.json().get("recognized_faces") == ["amy"], analysed.text
    assert office.enrol("bob", portraits[1]) == 201
    assert office.people() == {"amy": 1, "bob": 1}
    assert office.stores_are_equal()


@contextmanager
def full_disk(processes: list[psutil.Process]) -> Iterator[None]:
    limits = [resource.prlimit(process.pid, resource.RLIMIT_FSIZE) for process in processes]
    for process, (_, hard) in zip(processes, limits, strict=True):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        for process, limit in zip(processes, limits, strict=True):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limit)


def test_a_worker_that_is_asked_to_end_finishes_what_it_enrols(office: Office, portraits: list[bytes]) -> None:
    """One worker gets SIGTERM while it may be writing; its place is taken by a new one."""
    (first, _), pids = office.workers(), {worker.pid for worker in office.workers()}
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(office.enrol("amy", *portraits[:3])))
    asking.start()
    os.kill(first.pid, signal.SIGTERM)
    asking.join()
    assert answers == [201]
    eventually(lambda: len(office.workers()) == 2 and {worker.pid for worker in office.workers()} != pids)
    assert office.people() == {"amy": 3}
    eventually(office.stores_are_equal)
