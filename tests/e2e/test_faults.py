"""What breaks while people ask: every answer is right or says how it is degraded, and all is well again soon after."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import psutil
import psycopg
import pytest

from matchers.dual import PGVECTOR_FAILED, PKL_FAILED
from matchers.embedded import EmbeddedPostgres

CLIENTS = 3
# A fault is there until the test takes it away; a busy machine needs a while to notice.
NOTICE_SECONDS = 30.0
RECOVERY_SECONDS = 5.0
TIMEOUT = 1.0
COOLDOWN = 2.0
ROLE = "faces"
DISK_MEGABYTES = 256


UNREADABLE = "the last one serves on"
WAITED = re.compile(r"pgvector search failed in domain demo: .*(?:within|in time)")


@dataclass(slots=True)
class Load:
    """Clients that ask all the time; what they were answered: status, mode, names."""

    log: Path
    answers: list[tuple[int, str, tuple[str, ...]]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    logged: int = 0

    @property
    def modes(self) -> set[str]:
        return {mode for _, mode, _ in self.answers}

    def all_right(self, *modes: str) -> None:
        """Every answer was 200, named who is in the picture and said what it came from; few waited for the timeout."""
        assert len(self.answers) > CLIENTS
        assert {(status, names) for status, _, names in self.answers} == {(200, ("guest-3",))}
        assert self.modes <= {"dual", *modes}
        waited = WAITED.findall(self.log.read_text()[self.logged :])
        # Those under way when the breaker opens, once more after the cure, and a probe after each of its cooldowns.
        assert len(waited) <= 2 * (3 + CLIENTS) + (self.ended - self.began) / COOLDOWN, waited


@dataclass(frozen=True, slots=True)
class World:
    service: Any
    postgres: EmbeddedPostgres
    cluster: Path
    admin: str
    gallery: Path
    picture: bytes
    environment: dict[str, str]

    def execute(self, *statements: str, database: str = ROLE) -> None:
        with psycopg.connect(self.admin, dbname=database, autocommit=True, connect_timeout=2) as connection:
            for statement in statements:
                connection.execute(statement)

    def cut_connections(self) -> None:
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'")

    def ask(self) -> tuple[int, str, tuple[str, ...]]:
        answer = self.service.client.post("/analyze?domain=demo", files={"image": self.picture})
        body = answer.json()
        names = tuple(body.get("recognized_faces", ()))
        return answer.status_code, body.get("mode", ""), names

    @contextmanager
    def kept_down(self) -> Iterator[None]:
        """Whoever would start PostgreSQL waits."""
        with (self.cluster / "postgres" / "start.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """PostgreSQL takes no change."""
        self.execute(f"ALTER DATABASE {ROLE} SET default_transaction_read_only = on", database="postgres")
        self.cut_connections()
        yield
        self.execute(f"ALTER DATABASE {ROLE} RESET default_transaction_read_only", database="postgres")
        self.cut_connections()

    @contextmanager
    def all_connections_taken(self) -> Iterator[None]:
        """Others hold every connection that PostgreSQL has for ordinary users."""
        url = self.environment["DATABASE_URL"]
        # A connection that was being opened when the service was paused has no name yet, and keeps its place.
        theirs = "FROM pg_stat_activity WHERE application_name = 'face-service' OR state = 'starting'"
        reserved = "name IN ('superuser_reserved_connections', 'reserved_connections')"
        limit = f"SELECT setting::int - (SELECT sum(setting::int) FROM pg_settings WHERE {reserved}) FROM pg_settings"
        with ExitStack() as held, psycopg.connect(self.admin, autocommit=True) as admin:
            # One of them is that of ``admin``.
            places = admin.execute(f"{limit} WHERE name = 'max_connections'").fetchone()
            assert places is not None
            others, deadline = 0, time.monotonic() + NOTICE_SECONDS
            service = psutil.Process(self.service.process.pid)
            while others < places[0] - 1:
                assert time.monotonic() < deadline, f"others hold {others} connections of {places[0] - 1}"
                # Else it would come back into its place before others do.
                service.suspend()
                try:
                    admin.execute(f"SELECT pg_terminate_backend(pid, 1000) {theirs}")
                    with suppress(psycopg.OperationalError):
                        while True:
                            held.enter_context(psycopg.connect(url, application_name="others"))
                            others += 1
                finally:
                    service.resume()
                time.sleep(0.1)
            yield

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """PostgreSQL's disk takes nothing more, and what room its write-ahead log had is used up; whatever it lets go
        of is taken at once."""
        ballast, done = self.cluster / "ballast", threading.Event()

        def fill() -> None:
            with ballast.open("wb", buffering=0) as file:
                while True:
                    for size in (2**20, 4096, 1):
                        with suppress(OSError):
                            while not done.is_set():
                                file.write(bytes(size))
                    if done.wait(0.05):
                        return

        filling = threading.Thread(target=fill)
        filling.start()
        try:
            with pytest.raises(psycopg.OperationalError):
                for number in range(500):
                    self.execute(f"CREATE TABLE IF NOT EXISTS filling_{number} ()", "SELECT pg_switch_wal()")
            yield
        finally:
            done.set()
            filling.join()
            ballast.unlink()

    def until_postgresql_is_up(self) -> None:
        deadline = time.monotonic() + NOTICE_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "PostgreSQL was not started again"
                time.sleep(0.05)

    def until_logged(self, text: str, before: int) -> None:
        """Until the log holds ``text`` more than ``before`` times."""
        deadline = time.monotonic() + NOTICE_SECONDS
        while self.service.log.read_text().count(text) <= before:
            assert time.monotonic() < deadline, f"{text!r} was not logged"
            time.sleep(0.05)

    def until_in_both_stores(self, domain: str, person: str) -> None:
        deadline = time.monotonic() + RECOVERY_SECONDS
        path = f"/domains/{domain}/people/{person}"
        while self.service.client.get(path).json()["faces"][0]["stores"] != ["pkl", "pgvector"]:
            assert time.monotonic() < deadline, "pgvector did not get what it missed"
            time.sleep(0.05)

    @contextmanager
    def load(self) -> Iterator[Load]:
        log = self.service.log
        load, done = Load(log, logged=len(log.read_text())), threading.Event()

        def client() -> None:
            while not done.is_set():
                load.answers.append(self.ask())

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield load
        finally:
            done.set()
            for thread in threads:
                thread.join()
            load.ended = time.monotonic()

    def until(self, mode: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.ask()[1] != mode:
            assert time.monotonic() < deadline, f"not {mode!r} within {seconds} s: {self.ask()}"
            time.sleep(0.05)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """``folder`` as a disk of its own, where that can be made."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m,mode=0755", "none", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def world(
    start: Any,
    run_matchers: Callable[..., str],
    furnished: Callable[[Path], Path],
    group_picture: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    data_dir = tmp_path_factory.mktemp("faults")
    with small_disk(tmp_path_factory.mktemp("cluster")) as disk, EmbeddedPostgres(furnished(disk)) as postgres:
        cluster = disk
        admin = postgres.start()
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'right'")
            connection.execute(f"CREATE DATABASE {ROLE} OWNER {ROLE}")
            hba = Path(connection.execute("SHOW hba_file").fetchone()[0])  # type: ignore[index]
            hba.write_text(f"local all {ROLE} scram-sha-256\n" + hba.read_text())
            connection.execute("SELECT pg_reload_conf()")
        with psycopg.connect(admin, dbname=ROLE, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        host = psycopg.conninfo.conninfo_to_dict(admin)["host"]
        settings = {
            "DATA_DIR": str(data_dir),
            "DATABASE_URL": f"host={host} port=5432 user={ROLE} password=right dbname={ROLE}",
            "PGVECTOR_TIMEOUT": str(TIMEOUT),
        }
        run_matchers("demo", **settings)
        image = cv2.imread(str(group_picture))
        picture = cv2.imencode(".jpg", image[200:460, 400:640])[1].tobytes()
        gallery = next((data_dir / "galleries" / "demo").glob("*.pkl"))
        with start(**settings) as service:
            yield World(service, postgres, cluster, admin, gallery, picture, settings)


@pytest.fixture(autouse=True)
def well(world: World) -> Iterator[None]:
    """Each test starts and ends with both stores at work."""
    world.until("dual", RECOVERY_SECONDS)
    yield
    assert world.service.process.poll() is None
    world.until("dual", RECOVERY_SECONDS)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT], ids=["killed", "restarted"])
def test_postgresql_dies(world: World, kind: signal.Signals) -> None:
    """It stays dead until the test lets its keeper start it again."""
    pid = world.postgres.pid
    assert pid is not None
    with world.load() as load:
        with world.kept_down():
            os.kill(pid, kind)
            world.until(PGVECTOR_FAILED, NOTICE_SECONDS)
            assert world.service.client.get("/health/ready").json()["pgvector"] == {"status": "degraded"}
        world.until_postgresql_is_up()
        world.until("dual", RECOVERY_SECONDS)
    load.all_right(PGVECTOR_FAILED)
    assert world.postgres.pid not in (pid, None)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT], ids=["killed", "restarted"])
def test_postgresql_dies_and_comes_back_at_once(world: World, kind: signal.Signals) -> None:
    """As fast as its keeper can; whether a request falls into the gap is chance."""
    pid = world.postgres.pid
    assert pid is not None
    with world.load() as load:
        os.kill(pid, kind)
        psutil.wait_procs([psutil.Process(pid)], NOTICE_SECONDS)
        world.until_postgresql_is_up()
        world.until("dual", RECOVERY_SECONDS)
    load.all_right(PGVECTOR_FAILED)
    assert world.postgres.pid not in (pid, None)


def test_postgresql_is_paused(world: World) -> None:
    assert world.postgres.pid is not None
    processes = [server := psutil.Process(world.postgres.pid), *server.children()]
    with world.load() as load:
        for process in processes:
            process.suspend()
        try:
            world.until(PGVECTOR_FAILED, NOTICE_SECONDS)
            time.sleep(2)
        finally:
            for process in processes:
                process.resume()
        world.until("dual", RECOVERY_SECONDS)
    load.all_right(PGVECTOR_FAILED)


@pytest.mark.parametrize(
    ("fault", "cure"),
    [
        (f"ALTER ROLE {ROLE} CONNECTION LIMIT 0", f"ALTER ROLE {ROLE} CONNECTION LIMIT -1"),
        (f"ALTER ROLE {ROLE} PASSWORD 'other'", f"ALTER ROLE {ROLE} PASSWORD 'right'"),
        (f"ALTER ROLE {ROLE} NOLOGIN", f"ALTER ROLE {ROLE} LOGIN"),
    ],
    ids=["out of connections", "wrong password", "login taken away"],
)
def test_postgresql_lets_nobody_in(world: World, fault: str, cure: str) -> None:
    with world.load() as load:
        world.execute(fault)
        world.cut_connections()
        world.until(PGVECTOR_FAILED, NOTICE_SECONDS)
        world.execute(cure)
        world.until("dual", RECOVERY_SECONDS)
    load.all_right(PGVECTOR_FAILED)
    assert "right" not in world.service.log.read_text(), "the password is in the log"


def test_postgresql_has_no_connection_left(world: World) -> None:
    with world.load() as load:
        with world.all_connections_taken():
            world.until(PGVECTOR_FAILED, NOTICE_SECONDS)
        world.until("dual", RECOVERY_SECONDS)
    load.all_right(PGVECTOR_FAILED)


def test_the_disk_of_postgresql_is_full(world: World, portraits: list[bytes]) -> None:
    if not world.cluster.is_mount():
        pytest.skip("only root can mount a small disk")
    client = world.service.client
    assert client.post("/domains/office").status_code == 201
    with world.load() as load:
        with world.full_disk():
            answer = client.post("/domains/office/people/amy", files={"images": ("x.png", portraits[0])})
            assert answer.status_code == 201, answer.text
            assert world.service.analyze(portraits[0], "office")["recognized_faces"] == ["amy"]
        world.until_postgresql_is_up()
        world.until("dual", RECOVERY_SECONDS)
    load.all_right(PGVECTOR_FAILED)
    world.until_in_both_stores("office", "amy")
    assert client.delete("/domains/office").json()["pending"] == []


def test_postgresql_is_read_only(world: World) -> None:
    """Searches go on."""
    with world.load() as load:
        with world.read_only():
            world.until("dual", RECOVERY_SECONDS)
        world.until("dual", RECOVERY_SECONDS)
    load.all_right(PGVECTOR_FAILED)


@pytest.mark.parametrize("fault", ["killed", "read-only"])
def test_what_is_enrolled_meanwhile_gets_into_both_stores(world: World, portraits: list[bytes], fault: str) -> None:
    client = world.service.client
    assert client.post("/domains/office").status_code == 201
    with world.kept_down() if fault == "killed" else world.read_only():
        if fault == "killed":
            assert world.postgres.pid is not None
            os.kill(world.postgres.pid, signal.SIGKILL)
        answer = client.post("/domains/office/people/amy", files={"images": ("x.png", portraits[0])})
        assert (answer.status_code, answer.json()["pending"]) == (201, ["pgvector"])
        assert world.service.analyze(portraits[0], "office")["recognized_faces"] == ["amy"]
    world.until_postgresql_is_up()
    world.until_in_both_stores("office", "amy")
    assert world.service.analyze(portraits[0], "office")["comparison"]["top1_match"] is True
    assert client.delete("/domains/office").json()["pending"] == []


def test_the_schema_is_dropped(world: World, run_matchers: Callable[..., str]) -> None:
    with world.load() as load:
        world.execute("DROP SCHEMA face_service CASCADE")
        time.sleep(1)
    load.all_right(PGVECTOR_FAILED)
    run_matchers("demo", **world.environment)
    world.until("dual", RECOVERY_SECONDS)
    answer = world.service.analyze(world.picture, "demo")
    assert answer["comparison"]["top1_match"] is True


def test_the_gallery_is_deleted(world: World, tmp_path: Path) -> None:
    kept = shutil.copy2(world.gallery, tmp_path)
    with world.load() as load:
        world.gallery.unlink()
        world.until(PKL_FAILED, NOTICE_SECONDS)
        shutil.copy2(kept, world.gallery)
        world.until("dual", RECOVERY_SECONDS)
    load.all_right(PKL_FAILED)


def test_the_gallery_is_overwritten_with_rubbish(world: World, tmp_path: Path) -> None:
    """The last good one in memory goes on, and nothing in the file is run."""
    owned = tmp_path / "owned"
    kept = shutil.copy2(world.gallery, tmp_path)
    with world.load() as load:
        for rubbish in (b"cos\nsystem\n(S'touch " + bytes(owned) + b"'\ntR." * 50, Path(kept).read_bytes()[:-100]):
            noticed = world.service.log.read_text().count(UNREADABLE)
            world.gallery.write_bytes(rubbish)
            world.until_logged(UNREADABLE, noticed)
            ready = world.service.client.get("/health/ready").json()
            assert (ready["status"], ready["pkl"]) == ("degraded", {"status": "degraded"})
    load.all_right()
    assert not owned.exists()
    shutil.copy2(kept, world.gallery)
    deadline = time.monotonic() + RECOVERY_SECONDS
    while world.service.client.get("/health/ready").json()["status"] != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_gallery_is_replaced_by_another(world: World, tmp_path: Path) -> None:
    kept = shutil.copy2(world.gallery, tmp_path)
    fresh = world.gallery.with_suffix(".new")
    fresh.write_bytes(world.gallery.read_bytes().replace(b"guest-3", b"guest-X"))
    fresh.replace(world.gallery)
    deadline = time.monotonic() + RECOVERY_SECONDS
    while world.ask()[2] != ("guest-X",):
        assert time.monotonic() < deadline
    shutil.copy2(kept, world.gallery)


def test_model_files_vanish_while_they_are_in_use(start: Any, world: World, models_dir: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(models_dir, models)
    with start(
        **{**world.environment, "DATABASE_URL": "", "VECTOR_DB_ENABLED": "false", "MODELS_DIR": str(models)}
    ) as service:
        before = service.analyze(world.picture, "demo")["recognized_faces"]
        shutil.rmtree(models)
        assert service.analyze(world.picture, "demo")["recognized_faces"] == before == ["guest-3"]


def test_the_clock_jumps(start: Any, world: World, tmp_path: Path) -> None:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed (Debian: apt-get install libfaketime)")
    clock = tmp_path / "clock"
    clock.write_text("+0d")
    faked = {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }
    with start(**{**world.environment, **faked}) as service:
        assert service.analyze(world.picture, "demo")["mode"] == "dual", service.log.read_text()
        for jump in ("+3d", "-3d"):
            clock.write_text(jump)
            for _ in range(20):
                answer = service.analyze(world.picture, "demo")
                assert (answer["mode"], answer["recognized_faces"]) == ("dual", ["guest-3"])
                assert 0 < answer["timing_ms"]["total"] < 60_000
                time.sleep(0.1)
