from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector

from matchers import question
from matchers.base import FloatArray
from matchers.database import Connection
from matchers.question import Questions

ECHO = (
    b"SELECT i, 'person ' || i, (v <-> array_fill(0, ARRAY[vector_dims(v)])::vector)::float8, v::text "
    b"FROM unnest($1::vector[]) WITH ORDINALITY AS q(v, i) ORDER BY i"
)


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as opened:
        opened.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(opened)
        yield opened


def rows(count: int, dimension: int) -> FloatArray:
    return np.random.default_rng(count).standard_normal((count, dimension)).astype(np.float32)


@pytest.mark.parametrize(("count", "dimension"), [(1, 1), (1, 512), (6, 128), (3000, 512)])
def test_the_server_gets_every_number_and_the_answer_comes_whole(
    connection: Connection, count: int, dimension: int
) -> None:
    """The largest are 6 MB, more than a socket takes at once, and their answer is longer."""
    asked = rows(count, dimension)
    found = Questions().ask(connection, ECHO, asked)
    assert [(index, person) for index, person, _, _ in found] == [(i, f"person {i}") for i in range(1, count + 1)]
    assert np.allclose([distance for _, _, distance, _ in found], np.linalg.norm(asked, axis=1), rtol=1e-5)
    heard = np.array([text[1:-1].split(",") for _, _, _, text in found], np.float32)
    assert np.array_equal(heard, asked)


def test_embeddings_may_be_every_second_of_others(connection: Connection) -> None:
    asked = rows(8, 16)[::2, ::2]
    heard = [text for _, _, _, text in Questions().ask(connection, ECHO, asked)]
    assert heard == [text for _, _, _, text in Questions().ask(connection, ECHO, asked.copy())]
    assert len(heard) == 4


def test_other_work_is_done_while_the_server_works(connection: Connection) -> None:
    slow = b"SELECT 1::bigint, ''::text, 0::float8, pg_sleep(1)::text FROM unnest($1::vector[])"
    began, done = time.monotonic(), []
    assert len(Questions().ask(connection, slow, rows(1, 3), lambda: done.append(time.monotonic()))) == 1
    assert len(done) == 1
    assert done[0] - began < time.monotonic() - done[0]


def test_other_threads_run_while_an_answer_is_waited_for(connection: Connection) -> None:
    slow = b"SELECT 1::bigint, ''::text, 0::float8, pg_sleep(1)::text FROM unnest($1::vector[])"
    turns, done = [], threading.Event()

    def count() -> None:
        while not done.wait(0.01):
            turns.append(0)

    beside = threading.Thread(target=count)
    beside.start()
    Questions().ask(connection, slow, rows(1, 3))
    done.set()
    beside.join()
    assert len(turns) > 10


def test_what_the_server_says_is_raised_and_the_connection_goes_on(connection: Connection) -> None:
    questions = Questions()
    with pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"):
        questions.ask(
            connection, b"SELECT 1::bigint, '', 0::float8, '' FROM nowhere WHERE $1::vector[] IS NULL", rows(1, 3)
        )
    other = b"SELECT 1::bigint, '', 1::float8 / (vector_dims(($1::vector[])[1]) - 3), ''"
    with pytest.raises(psycopg.errors.DivisionByZero):
        questions.ask(connection, other, rows(1, 3))
    assert questions.ask(connection, other, rows(1, 4)) == [(1, "", 1.0, "")]


def test_a_server_that_goes_away_is_an_error(connection: Connection, database: str) -> None:
    pid = connection.info.backend_pid
    slow = b"SELECT 1::bigint, ''::text, 0::float8, pg_sleep(60)::text FROM unnest($1::vector[])"

    def end() -> None:
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))

    with pytest.raises(psycopg.OperationalError):
        Questions().ask(connection, slow, rows(1, 3), end)


def test_a_table_made_anew_is_found(connection: Connection) -> None:
    questions = Questions()
    query = b"SELECT n, '', 0::float8, '' FROM numbers WHERE $1::vector[] IS NOT NULL"
    for number in (1, 2):
        connection.execute("CREATE TABLE numbers (n bigint)")
        connection.execute("INSERT INTO numbers VALUES (%s)", (number,))
        assert questions.ask(connection, query, rows(1, 3)) == [(number, "", 0.0, "")]
        connection.execute("DROP TABLE numbers")
        with pytest.raises(psycopg.errors.UndefinedTable):
            questions.ask(connection, query, rows(1, 3))


def test_searches_are_prepared_anew_when_they_have_gone(connection: Connection) -> None:
    questions, done = Questions(), []
    expected = questions.ask(connection, ECHO, rows(2, 3))
    connection.execute("DEALLOCATE ALL")
    assert questions.ask(connection, ECHO, rows(2, 3), lambda: done.append(True)) == expected
    assert done == [True]
    assert questions.ask(connection, ECHO, rows(2, 3)) == expected


def test_a_connection_keeps_a_limited_number_of_searches(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(question, "_KEPT", 3)
    questions = Questions()
    for turn in (1, 2):
        for number in range(5):
            query = b"SELECT %d::bigint, '', 0::float8, '' FROM unnest($1::vector[])" % number
            assert questions.ask(connection, query, rows(1, 3)) == [(number, "", 0.0, "")], turn
    counted = connection.execute(
        "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'face_search%'"
    ).fetchone()
    assert counted == (3,)
