from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise

import numpy as np
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tiny import DIMENSION, make_card, make_clusters, make_faces, unit_rows

from matchers.base import FloatArray, GalleryFace, Match
from matchers.errors import StoreUnavailable
from matchers.pgvector import PgvectorStore
from models.card import ModelCard

LIMIT = 500
THRESHOLD = 0.6


@pytest.fixture
def store(database: str, embedder_card: ModelCard) -> Iterator[PgvectorStore]:
    """A store that goes through its indexes although so few faces are scanned as fast."""
    indexed = make_conninfo(database, options="-c enable_seqscan=off")
    with PgvectorStore(indexed, embedder_card, 20.0, exact_limit=LIMIT) as opened:
        yield opened


def exactly(faces: list[GalleryFace], queries: FloatArray, top_k: int) -> list[list[Match]]:
    distances = 1 - queries.astype(np.float64) @ np.stack([face.embedding for face in faces]).astype(np.float64).T
    answers = []
    for row in distances:
        order = sorted(range(len(faces)), key=lambda i: (row[i], faces[i].source))[:top_k]
        answers.append([Match(faces[i].person, float(row[i]), faces[i].source) for i in order])
    return answers


def assert_nearly_exact(store: PgvectorStore, domain: str, faces: list[GalleryFace], queries: FloatArray) -> None:
    """What lies under the threshold is found, to 99 %, and the nearest person always."""
    found = wanted = 0
    answers = store.search(queries, domain, None, 10)
    for matches, expected in zip(answers, exactly(faces, queries, 10), strict=True):
        assert matches[0].person == expected[0].person
        assert all(one.distance <= other.distance for one, other in pairwise(matches))
        assert len({match.source for match in matches}) == len(matches) == 10
        distances = {match.source: match.distance for match in matches}
        under = [match for match in expected if match.distance <= THRESHOLD]
        wanted += len(under)
        found += sum(match.source in distances for match in under)
        for match in expected:
            assert distances.get(match.source, match.distance) == pytest.approx(match.distance, abs=1e-5)
    assert wanted > 2 * len(queries)
    assert found / wanted >= 0.99


def wait_for_scans(database: str, suffix: str, count: int) -> None:
    """A connection that ends reports what it did."""
    deadline = time.monotonic() + 30
    while scans(database, suffix) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def scans(database: str, suffix: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname LIKE %s", (f"%{suffix}",)
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_large_domain_is_searched_through_indexes_and_ranked_exactly(store: PgvectorStore, database: str) -> None:
    faces, queries = make_clusters(400, 150)
    store.apply("demo", faces, [])
    assert not store.indexed("demo")
    assert_nearly_exact(store, "demo", faces, queries)
    assert store.build_indexes() == ["demo"]
    assert store.indexed("demo")
    assert_nearly_exact(store, "demo", faces, queries)
    assert store.build_indexes() == []
    store.close()
    wait_for_scans(database, "_hnsw", len(queries))
    wait_for_scans(database, "_people", len(queries))


def test_twenty_domains_in_one_database_are_searched_each_by_itself(store: PgvectorStore) -> None:
    galleries = {f"d{number:02}": make_clusters(120 if number < 3 else 30, 12, seed=number) for number in range(20)}
    for domain, (faces, _) in galleries.items():
        store.apply(domain, faces, [])
    assert store.build_indexes() == ["d00", "d01", "d02"]
    for domain, (faces, queries) in galleries.items():
        assert_nearly_exact(store, domain, faces, queries)


def test_faces_that_come_and_go_are_seen_through_the_indexes(store: PgvectorStore) -> None:
    faces, _ = make_clusters(150, 1)
    store.apply("demo", faces, [])
    store.build_indexes()
    newest = make_faces(3, seed=9, prefix="new-")
    store.apply("demo", newest, [])
    assert store.search(newest[1].embedding[None], "demo", None, 1)[0][0].source == "new-p0/1.jpg"
    store.apply("demo", [], [newest[1].source, faces[7].source])
    for gone in (newest[1], faces[7]):
        matches = store.search(gone.embedding[None], "demo", None, 10)[0]
        assert len(matches) == 10
        assert gone.source not in {match.source for match in matches}


def test_many_faces_are_asked_for_and_given(store: PgvectorStore) -> None:
    faces, queries = make_clusters(150, 2)
    store.apply("demo", faces, [])
    store.build_indexes()
    assert [len(matches) for matches in store.search(queries, "demo", None, 600)] == [600, 600]
    assert [len(matches) for matches in store.search(queries, "demo", None, 1)] == [1, 1]
    assert store.search(queries[:0], "demo", None, 1) == []


def test_a_person_with_more_faces_than_are_compared_is_found(store: PgvectorStore) -> None:
    faces, _ = make_clusters(110, 1)
    spread = unit_rows(1, seed=77) + 0.02 * unit_rows(400, seed=78)
    spread /= np.linalg.norm(spread, axis=1, keepdims=True)
    crowd = [GalleryFace("crowd", f"crowd/{i:03}.jpg", "", row, (0, 0, 1, 1)) for i, row in enumerate(spread)]
    store.apply("demo", [*faces, *crowd], [])
    store.build_indexes()
    for query in spread[::40]:
        assert store.search(query[None], "demo", None, 1)[0][0].source == f"crowd/{np.argmax(spread @ query):03}.jpg"


def test_domains_dropped_and_purged_lose_their_indexes(store: PgvectorStore, database: str) -> None:
    faces, queries = make_clusters(150, 20)
    store.apply("demo", faces, [])
    store.apply("other", faces, [])
    assert store.build_indexes() == ["demo", "other"]
    store.drop("other")
    store.purge("demo", indexed=True)
    assert store.indexed("demo")
    assert_nearly_exact(store, "demo", faces, queries)
    with psycopg.connect(database) as connection:
        names = connection.execute("SELECT indexrelname FROM pg_stat_user_indexes WHERE indexrelname ~ 'hnsw|people'")
        assert len(names.fetchall()) == 2


def test_an_index_without_that_of_people_is_made_again(store: PgvectorStore, database: str) -> None:
    faces, queries = make_clusters(120, 5)
    store.apply("demo", faces, [])
    store.build_indexes()
    with psycopg.connect(database, autocommit=True) as connection:
        row = connection.execute(
            "SELECT indexrelname FROM pg_stat_user_indexes WHERE indexrelname LIKE '%_people'"
        ).fetchone()
        assert row is not None
        connection.execute(sql.SQL("DROP INDEX face_service.{}").format(sql.Identifier(row[0])))
    with PgvectorStore(database, make_card("tiny", DIMENSION), 20.0, exact_limit=LIMIT) as other:
        assert not other.indexed("demo")
        assert other.build_indexes() == ["demo"]
        assert_nearly_exact(other, "demo", faces, queries)


def test_two_that_build_at_once_build_once(store: PgvectorStore, database: str, embedder_card: ModelCard) -> None:
    faces, _ = make_clusters(300, 1)
    store.apply("demo", faces, [])
    with PgvectorStore(database, embedder_card, 20.0, exact_limit=LIMIT) as other:
        built: list[list[str]] = []
        threads = [threading.Thread(target=lambda s=s: built.append(s.build_indexes())) for s in (store, other)]  # type: ignore[misc]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(built) == [[], ["demo"]]


def test_closing_gives_up_what_is_built(store: PgvectorStore, database: str, caplog: pytest.LogCaptureFixture) -> None:
    faces, queries = make_clusters(150, 5)
    store.apply("demo", faces, [])
    failures: list[BaseException] = []

    def build() -> None:
        try:
            store.build_indexes()
        except StoreUnavailable as error:
            failures.append(error)

    with psycopg.connect(database) as blocker, caplog.at_level(logging.INFO):
        row = blocker.execute("SELECT partition_name FROM face_service.domains").fetchone()
        assert row is not None
        # An index is not finished while a transaction that writes the table runs.
        blocker.execute(
            sql.SQL("DELETE FROM {} WHERE source = 'nobody'").format(sql.Identifier("face_service", row[0]))
        )
        builder = threading.Thread(target=build)
        builder.start()
        deadline = time.monotonic() + 60
        while not waiting(database):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        store.close()
        builder.join(60)
    assert not builder.is_alive()
    assert len(failures) == 1
    store.open()
    assert not store.indexed("demo")
    assert store.build_indexes() == ["demo"]
    assert_nearly_exact(store, "demo", faces, queries)


def waiting(database: str, statement: str = "CREATE INDEX CONCURRENTLY") -> bool:
    with psycopg.connect(database) as connection:
        return bool(
            connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE starts_with(query, %s) "
                "AND wait_event_type = 'Lock' AND datname = current_database()",
                (statement,),
            ).fetchall()
        )


def test_a_store_that_closes_before_an_index_is_begun_begins_none(store: PgvectorStore, database: str) -> None:
    store.apply("demo", make_clusters(150, 5)[0], [])
    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(database) as blocker:
            row = blocker.execute("SELECT partition_name FROM face_service.domains").fetchone()
            assert row is not None
            # Who looks which domains have outgrown an exact scan waits.
            blocker.execute(sql.SQL("LOCK TABLE {}").format(sql.Identifier("face_service", row[0])))
            built = pool.submit(store.build_indexes)
            deadline = time.monotonic() + 60
            while not waiting(database, "SELECT domain"):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            store.close()
        assert isinstance(built.exception(60), StoreUnavailable)
    store.open()
    assert not store.indexed("demo")
    assert store.build_indexes() == ["demo"]


def test_a_domain_that_comes_and_goes_is_passed_over(database: str, embedder_card: ModelCard) -> None:
    with (
        PgvectorStore(database, embedder_card, 20.0, exact_limit=2) as store,
        PgvectorStore(database, embedder_card, 20.0, exact_limit=2) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        store.apply("demo", make_faces(5), [])
        store.build_indexes()
        ended = threading.Event()

        def come_and_go() -> None:
            while not ended.is_set():
                other.apply("guest", make_faces(5), [])
                other.drop("guest")

        guest = pool.submit(come_and_go)
        try:
            for _ in range(300):
                # That it was deleted while its index was built may be said.
                with suppress(StoreUnavailable):
                    assert "demo" not in store.build_indexes()
        finally:
            ended.set()
        guest.result()


def test_wide_embeddings_get_cells_and_more_of_them_as_a_domain_grows(database: str) -> None:
    faces, queries = make_clusters(420, 60, 512)
    indexed = make_conninfo(database, options="-c enable_seqscan=off")
    with PgvectorStore(indexed, make_card("wide", 512), 20.0, exact_limit=LIMIT) as store:
        store.apply("demo", faces[:600], [])
        assert store.build_indexes() == ["demo"]
        assert store.build_indexes() == []
        assert cells(database) == 2
        store.apply("demo", faces[600:], [])
        assert_nearly_exact(store, "demo", faces, queries)
        assert store.build_indexes() == ["demo"]
        assert store.build_indexes() == []
        assert cells(database) == 8
        assert_nearly_exact(store, "demo", faces, queries)
        newest = make_faces(3, 512, seed=9, prefix="new-")
        store.apply("demo", newest, [faces[0].source])
        assert store.search(newest[1].embedding[None], "demo", None, 1)[0][0].source == "new-p0/1.jpg"
    assert kinds(database) == {"cells", "people"}
    wait_for_scans(database, "_cells", len(queries))


def test_a_graph_that_an_earlier_version_made_of_wide_embeddings_gives_way_to_cells(database: str) -> None:
    faces, queries = make_clusters(140, 60, 512)
    indexed = make_conninfo(database, options="-c enable_seqscan=off")
    with PgvectorStore(indexed, make_card("wide", 512), 20.0, exact_limit=LIMIT) as store:
        store.apply("demo", faces, [])
        store.build_indexes()
    make_graph(database)
    assert kinds(database) == {"hnsw", "people"}
    with PgvectorStore(indexed, make_card("wide", 512), 20.0, exact_limit=LIMIT) as store:
        assert_nearly_exact(store, "demo", faces, queries)
        assert store.build_indexes() == ["demo"]
        assert_nearly_exact(store, "demo", faces, queries)
    assert kinds(database) == {"cells", "people"}


def make_graph(database: str) -> None:
    """Puts a graph in the place of the only domain's cells."""
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT indexname, tablename FROM pg_indexes WHERE indexname LIKE '%_cells' AND schemaname = 'face_service'"
        ).fetchone()
        assert row is not None
        graph = sql.Identifier(row[0].removesuffix("cells") + "hnsw")
        connection.execute("SET search_path = face_service, public")
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(row[0])))
        connection.execute(
            sql.SQL("CREATE INDEX {} ON {} USING hnsw ((embedding::halfvec(512)) halfvec_ip_ops)").format(
                graph, sql.Identifier(row[1])
            )
        )


def cells(database: str) -> int:
    """How many cells the index of the only domain has."""
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT (regexp_match(reloptions::text, 'lists=([0-9]+)'))[1] FROM pg_class WHERE relname LIKE '%_cells'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def kinds(database: str) -> set[str]:
    """How the names of the indexes on embeddings and people end."""
    with psycopg.connect(database) as connection:
        names = connection.execute("SELECT indexrelname FROM pg_stat_user_indexes WHERE relname ~ '^faces_'")
        return {name.rpartition("_")[2] for (name,) in names} - {"idx"}


def test_embeddings_too_wide_for_an_index_are_scanned(database: str) -> None:
    with PgvectorStore(database, make_card("wide", 4200), 20.0, exact_limit=5) as store:
        store.apply("demo", make_faces(9, 4200), [])
        assert store.build_indexes() == []
        assert len(store.search(unit_rows(1, 4200), "demo", None, 9)[0]) == 9
