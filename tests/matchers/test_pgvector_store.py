from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from matchers.base import FloatArray, GalleryFace
from matchers.embedded import EmbeddedPostgres
from matchers.errors import GalleryError, StoreUnavailable, UnknownDomain
from matchers.pgvector import PgvectorStore
from models.card import ModelCard

Faces = Callable[..., list[GalleryFace]]
Unit = Callable[..., FloatArray]
Card = Callable[[str, int], ModelCard]

# A busy machine takes its time; a call that is not given up never returns.
PATIENCE = 20.0

WRITER_SCRIPT = """
import sys
import numpy as np
from matchers.base import GalleryFace
from matchers.pgvector import PgvectorStore
from models.card import ModelCard
card = ModelCard.from_json(sys.argv[2])
rows = np.eye(card.dimension, dtype=np.float32)
with PgvectorStore(sys.argv[1], card, 20.0) as store:
    for number in range(int(sys.argv[4])):
        source = f"{sys.argv[3]}/{number}.jpg"
        store.apply("shared", [GalleryFace(sys.argv[3], source, "", rows[number % len(rows)], (0, 0, 1, 1))], [])
"""


@pytest.fixture
def store(database: str, embedder_card: ModelCard) -> Iterator[PgvectorStore]:
    with PgvectorStore(database, embedder_card, 10.0) as opened:
        yield opened


def plain(faces: list[GalleryFace]) -> list[tuple[object, ...]]:
    return [(f.person, f.source, f.digest, f.box, f.embedding.tobytes()) for f in faces]


def by_source(faces: list[GalleryFace]) -> list[GalleryFace]:
    return sorted(faces, key=lambda face: (face.source, face.box))


def brute_force(faces: list[GalleryFace], query: FloatArray, top_k: int) -> list[tuple[str, float]]:
    distances = 1.0 - np.stack([face.embedding for face in faces]).astype(np.float64) @ query.astype(np.float64)
    order = sorted(range(len(faces)), key=lambda i: (distances[i], faces[i].source))
    return [(faces[i].source, float(distances[i])) for i in order[:top_k]]


def test_what_is_written_is_read_back_bit_for_bit(store: PgvectorStore, faces: Faces) -> None:
    written = faces(30)
    store.apply("demo", written, [])
    assert plain(store.faces("demo")) == plain(by_source(written))
    assert store.faces("demo")[0].embedding.dtype == np.float32
    assert store.inventory("demo") == {face.source: face.digest for face in written}
    assert store.count("demo") == 30
    assert store.domains() == ["demo"]


def test_search_equals_brute_force(store: PgvectorStore, faces: Faces, unit: Unit) -> None:
    gallery = faces(500)
    store.apply("demo", gallery, [])
    queries = unit(7, seed=1)
    answers = store.search(queries, "demo", None, 12)
    assert len(answers) == 7
    for query, matches in zip(queries, answers, strict=True):
        expected = brute_force(gallery, query, 12)
        assert [match.source for match in matches] == [source for source, _ in expected]
        np.testing.assert_allclose([m.distance for m in matches], [d for _, d in expected], atol=1e-5)
        assert all(match.source.startswith(match.person + "/") for match in matches)


def test_equal_distances_are_ordered_by_source(store: PgvectorStore, unit: Unit) -> None:
    row = unit(1)[0]
    sources = ["b.jpg", "A.jpg", "a.jpg", "č.jpg", "Z.jpg", "10.jpg", "9.jpg"]
    store.apply("demo", [GalleryFace("p", source, "", row, (0, 0, 1, 1)) for source in sources], [])
    assert [m.source for m in store.search(row[None], "demo", None, 10)[0]] == sorted(sources)
    assert [m.source for m in store.search(row[None], "demo", None, 3)[0]] == sorted(sources)[:3]
    assert [face.source for face in store.faces("demo")] == sorted(sources)


def test_the_threshold_drops_what_is_farther(store: PgvectorStore, faces: Faces) -> None:
    gallery = faces(50)
    store.apply("demo", gallery, [])
    matches = store.search(gallery[3].embedding[None], "demo", 0.001, 50)[0]
    assert [match.source for match in matches] == [gallery[3].source]


def test_domains_do_not_see_each_other(store: PgvectorStore, faces: Faces) -> None:
    store.apply("slovenia", faces(9, prefix="si-"), [])
    store.apply("serbia", faces(9, prefix="rs-"), [])
    query = faces(9)[0].embedding[None]
    assert {m.person[:3] for m in store.search(query, "slovenia", None, 100)[0]} == {"si-"}
    assert {m.person[:3] for m in store.search(query, "serbia", None, 100)[0]} == {"rs-"}
    store.drop("slovenia")
    assert store.domains() == ["serbia"]
    assert store.count("serbia") == 9
    with pytest.raises(UnknownDomain):
        store.search(query, "slovenia", None, 1)


def test_models_do_not_see_each_other(database: str, card: Card, faces: Faces) -> None:
    with PgvectorStore(database, card("one", 64), 10.0) as one, PgvectorStore(database, card("two", 32), 10.0) as two:
        one.apply("demo", faces(3), [])
        assert two.domains() == []
        two.apply("demo", faces(5, 32), [])
        assert (one.count("demo"), two.count("demo")) == (3, 5)


def test_an_unknown_domain_is_told_apart_from_an_empty_one(store: PgvectorStore, faces: Faces, unit: Unit) -> None:
    with pytest.raises(UnknownDomain, match="nowhere"):
        store.search(unit(1), "nowhere", None, 5)
    assert (store.count("nowhere"), store.faces("nowhere"), store.inventory("nowhere")) == (0, [], {})
    store.drop("nowhere")
    store.apply("demo", faces(2), [])
    store.apply("demo", [], [face.source for face in faces(2)])
    assert store.search(unit(2), "demo", None, 5) == [[], []]
    assert store.domains() == ["demo"]


def test_no_faces_asked_is_no_answer(store: PgvectorStore, faces: Faces) -> None:
    store.apply("demo", faces(2), [])
    assert store.search(np.empty((0, 64), np.float32), "demo", None, 5) == []


def test_a_domain_dropped_by_another_store_is_unknown_and_can_come_back(
    store: PgvectorStore, database: str, embedder_card: ModelCard, faces: Faces, unit: Unit
) -> None:
    store.apply("demo", faces(2), [])
    assert len(store.search(unit(1), "demo", None, 5)[0]) == 2
    with PgvectorStore(database, embedder_card, 10.0) as other:
        other.drop("demo")
        with pytest.raises(UnknownDomain):
            store.search(unit(1), "demo", None, 5)
        other.apply("demo", faces(5), [])
    for _ in range(8):
        assert len(store.search(unit(1), "demo", None, 9)[0]) == 5


def test_apply_replaces_all_faces_of_a_picture(store: PgvectorStore, unit: Unit) -> None:
    rows = unit(5)
    group = [GalleryFace("p", "group.jpg", "old", rows[i], (i, 0, 9, 9)) for i in range(3)]
    store.apply("demo", [*group, GalleryFace("q", "q.jpg", "q", rows[3], (0, 0, 9, 9))], [])
    assert store.count("demo") == 4
    store.apply("demo", [GalleryFace("p", "group.jpg", "new", rows[4], (0, 0, 9, 9))], ["q.jpg", "missing.jpg"])
    assert store.inventory("demo") == {"group.jpg": "new"}
    assert store.count("demo") == 1


@pytest.mark.parametrize(
    "name",
    ["O'Brien", '"; DROP TABLE x; --', "Đorđe Balašević", "李小龍", "tab\tnew\nline\\", "%s {} %(x)s", "x" * 3000],
)
def test_any_name_is_kept_as_it_is(store: PgvectorStore, unit: Unit, name: str) -> None:
    face = GalleryFace(name, f"{name}/1.jpg", "d", unit(1)[0], (0, 0, 1, 1))
    store.apply(name, [face], [])
    assert store.domains() == [name]
    match = store.search(unit(1), name, None, 1)[0][0]
    assert (match.person, match.source) == (name, f"{name}/1.jpg")
    store.apply(name, [], [f"{name}/1.jpg"])
    assert store.count(name) == 0
    store.drop(name)
    assert store.domains() == []


@pytest.mark.parametrize("name", ["nul\0", "\udcff.jpg"])
def test_a_name_that_postgresql_cannot_hold_is_refused(store: PgvectorStore, unit: Unit, name: str) -> None:
    with pytest.raises(GalleryError, match="rename"):
        store.apply("demo", [GalleryFace("p", name, "", unit(1)[0], (0, 0, 1, 1))], [])


def test_embeddings_that_do_not_fit_are_refused(store: PgvectorStore, unit: Unit) -> None:
    with pytest.raises(GalleryError, match="64 finite numbers"):
        store.apply("demo", [GalleryFace("p", "p.jpg", "", unit(1, 32)[0], (0, 0, 1, 1))], [])
    with pytest.raises(GalleryError, match="shape"):
        store.search(unit(1, 32), "demo", None, 1)
    with pytest.raises(GalleryError, match="finite"):
        store.search(np.full((1, 64), np.nan, np.float32), "demo", None, 1)


def test_a_table_of_another_model_is_refused(database: str, card: Card, faces: Faces) -> None:
    with PgvectorStore(database, card("tiny", 64), 10.0) as first:
        first.apply("demo", faces(1), [])
    with (
        PgvectorStore(database, card("tiny", 32), 10.0) as second,
        pytest.raises(GalleryError, match="another model"),
    ):
        second.count("demo")


@pytest.mark.parametrize("dimension", [128, 512, 1024, 1900, 2048])
def test_embeddings_stay_out_of_toast_while_a_page_holds_them(
    database: str, card: Card, faces: Faces, dimension: int
) -> None:
    with PgvectorStore(database, card("wide", dimension), 10.0) as store:
        gallery = faces(5, dimension)
        store.apply("demo", gallery, [])
        assert plain(store.faces("demo")) == plain(by_source(gallery))
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT relname, attstorage, pg_relation_size(reltoastrelid) > 0 FROM pg_class "
            "JOIN pg_attribute ON attrelid = pg_class.oid "
            "WHERE relname LIKE 'faces_wide_%' AND relkind = 'r' AND attname = 'embedding'"
        ).fetchone()
    assert row is not None
    assert row[1:] == (("p", False) if dimension <= 1900 else ("e", True))


def test_writers_in_threads_lose_nothing(store: PgvectorStore, faces: Faces) -> None:
    def enrol(number: int) -> None:
        store.apply("new", faces(6, prefix=f"{number}-", seed=number), [])

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(enrol, range(24)))
    assert store.count("new") == 24 * 6


def test_writers_in_processes_lose_nothing(database: str, embedder_card: ModelCard) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER_SCRIPT, database, embedder_card.to_json(), name, "25"])
        for name in ("first", "second")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with PgvectorStore(database, embedder_card, 10.0) as store:
        expected = {f"{name}/{number}.jpg" for name in ("first", "second") for number in range(25)}
        assert set(store.inventory("shared")) == expected


def test_four_processes_migrate_at_once(database: str, embedder_card: ModelCard) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER_SCRIPT, database, embedder_card.to_json(), f"w{i}", "1"])
        for i in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT version, name FROM face_service.schema_migrations").fetchall()
    scripts = sorted(path.name for path in Path(__file__).parents[2].glob("matchers/migrations/*.sql"))
    assert rows == [(number, name) for number, name in enumerate(scripts, start=1)]
    with PgvectorStore(database, embedder_card, 10.0) as store:
        assert store.count("shared") == 4


def test_a_newer_schema_is_refused(store: PgvectorStore, database: str, embedder_card: ModelCard) -> None:
    store.migrate()
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO face_service.schema_migrations (version, name) VALUES (999, 'later')")
    with (
        PgvectorStore(database, embedder_card, 10.0) as older,
        pytest.raises(StoreUnavailable, match=r"version 999.*newer program"),
    ):
        older.domains()


def test_without_the_right_to_install_pgvector_the_message_says_what_to_run(
    database: str, embedder_card: ModelCard
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS plain_user")
        connection.execute("CREATE ROLE plain_user LOGIN")
        connection.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO plain_user").format(
                sql.Identifier(str(conninfo_to_dict(database)["dbname"]))
            )
        )
    with PgvectorStore(make_conninfo(database, user="plain_user"), embedder_card, 10.0) as store:
        with pytest.raises(StoreUnavailable, match="CREATE EXTENSION vector"):
            store.count("demo")
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        assert store.count("demo") == 0
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP OWNED BY plain_user")
        connection.execute("DROP ROLE plain_user")


def test_pgvector_in_a_schema_of_its_own_is_found(
    database: str, embedder_card: ModelCard, faces: Faces, unit: Unit
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute('CREATE SCHEMA "Its Own"')
        connection.execute('CREATE EXTENSION vector SCHEMA "Its Own"')
    with PgvectorStore(database, embedder_card, 10.0) as store:
        store.apply("demo", faces(3), [])
        assert len(store.search(unit(1), "demo", None, 9)[0]) == 3


def test_a_killed_transaction_changes_nothing(store: PgvectorStore, database: str, faces: Faces) -> None:
    before = faces(30)
    store.apply("demo", before, [])
    stop = threading.Event()

    def kill_copy() -> bool:
        with psycopg.connect(database, autocommit=True) as connection:
            while not stop.is_set():
                killed = connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE query LIKE 'COPY %' AND state = 'active' AND datname = current_database()"
                ).fetchall()
                if killed:
                    return True
        return False

    with ThreadPoolExecutor(1) as threads:
        killer = threads.submit(kill_copy)
        try:
            with pytest.raises(StoreUnavailable):
                store.apply("demo", faces(20_000, seed=3), [face.source for face in before])
        finally:
            stop.set()
        assert killer.result(10)
    assert plain(store.faces("demo")) == plain(by_source(before))
    store.apply("demo", faces(3, prefix="after-"), [])
    assert store.count("demo") == 33


@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql+psycopg://me:s3cret-word@host/db",
        "host=x password='s3cret-word oops",
        "postgresql://me:s3cret-word@[x",
    ],
)
def test_a_connection_string_that_cannot_be_read_is_not_repeated(conninfo: str, embedder_card: ModelCard) -> None:
    with pytest.raises(StoreUnavailable, match="DATABASE_URL") as caught:
        PgvectorStore(conninfo, embedder_card, 1.0)
    assert "s3cret-word" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid:5432"])
def test_a_server_that_is_not_there_is_told_soon_and_without_the_password(
    embedder_card: ModelCard, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    with PgvectorStore(f"postgresql://me:s3cret-word@{host}/db", embedder_card, 10.0) as store:
        opened = time.monotonic() - began
        assert opened < 5
        with pytest.raises(StoreUnavailable) as caught:
            store.search(np.eye(1, 64, dtype=np.float32), "demo", None, 1)
    error: BaseException | None = caught.value
    assert isinstance(caught.value.__cause__, psycopg.Error)
    while error is not None:
        assert "s3cret-word" not in repr(error)
        error = error.__cause__
    assert "s3cret-word" not in caplog.text
    assert host.partition(":")[0] in str(caught.value)


def test_a_database_that_stops_is_told_in_time_and_used_again_when_it_is_back(
    tmp_path: Path, furnished: Callable[[Path], Path], embedder_card: ModelCard, faces: Faces, unit: Unit
) -> None:
    server = EmbeddedPostgres(furnished(tmp_path))
    timeout = 2.0
    try:
        with PgvectorStore(server.start(), embedder_card, timeout) as store:
            store.apply("demo", faces(9), [])
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(lambda _: store.search(unit(1), "demo", None, 3), range(64)))
            server.stop()
            for _ in range(3):
                began = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    store.search(unit(1), "demo", None, 3)
                assert time.monotonic() - began < timeout + PATIENCE
            server.start()
            assert len(store.search(unit(1), "demo", None, 3)[0]) == 3
            with ThreadPoolExecutor(8) as threads:
                answers = list(threads.map(lambda _: store.search(unit(1), "demo", None, 3), range(64)))
            assert all(len(answer[0]) == 3 for answer in answers)
    finally:
        server.stop()


def test_a_database_that_was_down_at_the_start_is_used_when_it_comes(
    tmp_path: Path, furnished: Callable[[Path], Path], embedder_card: ModelCard, faces: Faces
) -> None:
    server = EmbeddedPostgres(furnished(tmp_path))
    conninfo = server.start()
    server.stop()
    try:
        with PgvectorStore(conninfo, embedder_card, 2.0) as store:
            with pytest.raises(StoreUnavailable):
                store.apply("demo", faces(3), [])
            server.start()
            store.apply("demo", faces(3), [])
            assert store.count("demo") == 3
    finally:
        server.stop()


@pytest.mark.parametrize("first", ["search", "apply", "count"])
def test_a_server_that_hangs_is_given_up_and_used_again(
    tmp_path: Path, furnished: Callable[[Path], Path], *, embedder_card: ModelCard, faces: Faces, unit: Unit, first: str
) -> None:
    timeout = 2.0
    with (
        EmbeddedPostgres(furnished(tmp_path)) as server,
        PgvectorStore(server.start(), embedder_card, timeout) as store,
    ):
        store.apply("demo", faces(9), [])
        assert server.pid is not None
        family = [server.pid, *(int(pid) for pid in children_of(server.pid))]
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        try:
            work: dict[str, Callable[[], object]] = {
                "search": lambda: store.search(unit(1), "demo", None, 3),
                "apply": lambda: store.apply("demo", faces(1), []),
                "count": lambda: store.count("demo"),
            }
            for name in (first, "search"):
                began = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    work[name]()
                assert time.monotonic() - began < timeout + PATIENCE
        finally:
            for pid in family:
                os.kill(pid, signal.SIGCONT)
        assert len(store.search(unit(1), "demo", None, 3)[0]) == 3


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_query_that_waits_too_long_is_given_up(
    database: str, embedder_card: ModelCard, faces: Faces, unit: Unit
) -> None:
    with PgvectorStore(database, embedder_card, 1.0) as store:
        store.apply("demo", faces(3), [])
        with psycopg.connect(database) as blocker:
            row = blocker.execute("SELECT partition_name FROM face_service.domains").fetchone()
            assert row is not None
            blocker.execute(sql.SQL("LOCK TABLE {}").format(sql.Identifier("face_service", row[0])))
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                store.search(unit(1), "demo", None, 1)
            assert time.monotonic() - began < 1 + PATIENCE
            with pytest.raises(StoreUnavailable):
                store.apply("demo", faces(1), [])
        assert len(store.search(unit(1), "demo", None, 9)[0]) == 3
        assert store.count("demo") == 3


def test_tables_that_vanish_are_made_anew(store: PgvectorStore, database: str, faces: Faces, unit: Unit) -> None:
    store.apply("demo", faces(3), [])
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP SCHEMA face_service CASCADE")
    with pytest.raises(StoreUnavailable, match="gone"):
        store.search(unit(1), "demo", None, 1)
    store.apply("demo", faces(2), [])
    assert len(store.search(unit(1), "demo", None, 9)[0]) == 2


def test_many_threads_share_a_few_connections(store: PgvectorStore, database: str, faces: Faces, unit: Unit) -> None:
    store.apply("demo", faces(60), [])
    queries = unit(200, seed=5)
    alone = [store.search(query[None], "demo", None, 5) for query in queries]
    with ThreadPoolExecutor(32) as threads:
        together = list(threads.map(lambda query: store.search(query[None], "demo", None, 5), queries))
    assert together == alone
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'face-service' "
            "AND datname = current_database()"
        ).fetchone()
    assert row is not None
    assert row[0] <= 8


def test_a_closed_store_says_so_and_can_be_opened_again(store: PgvectorStore, faces: Faces) -> None:
    store.apply("demo", faces(3), [])
    store.close()
    with pytest.raises(StoreUnavailable):
        store.count("demo")
    store.open()
    assert store.count("demo") == 3
    store.ping()


def test_a_server_that_moves_while_a_connection_is_out_is_found_at_its_new_place(
    database: str, embedder_card: ModelCard, faces: Faces
) -> None:
    places = [database, make_conninfo(database, application_name="moved")]
    with PgvectorStore(lambda: places.pop(0) if len(places) > 1 else places[0], embedder_card, 5.0) as store:
        store.apply("demo", faces(3), [])
        with store.database.connection() as connection:
            store.database.forget()
            assert store.count("demo") == 3
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert store.count("demo") == 3
