"""Comparisons that dual mode made: none is lost while PostgreSQL is away, and none names who was deleted."""

from __future__ import annotations

import os
import signal
import string
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_faces

from matchers.base import Match, source_id
from matchers.breaker import CircuitBreaker
from matchers.compare import Comparison
from matchers.dual import Searcher
from matchers.errors import StoreUnavailable
from matchers.gallery import PklStore
from matchers.journal import recover, write_both
from matchers.people import delete_person, rename_person
from matchers.pgvector import PgvectorStore
from matchers.recording.figures import Recorded, Window, bucket_width, recorded
from matchers.recording.record import (
    REDACTED,
    Record,
    Redaction,
    SeenFace,
    decode,
    decode_redaction,
    encode,
    encode_redaction,
    redacted,
)
from matchers.recording.recorder import Recorder
from matchers.recording.report import moment
from matchers.recording.spool import Spool
from matchers.recording.table import Retention
from matchers.service import Stores
from models.card import ModelCard

DEAD = "host=127.0.0.1 port=1 user=nobody dbname=nothing"
DOMAIN = "office"
TINY = "tiny"

names = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
figures = st.floats(0, 1e4)
matches = st.builds(Match, names, st.floats(0, 2), names)
faces = st.builds(
    SeenFace,
    st.lists(matches, max_size=3).map(tuple),
    st.lists(matches, max_size=3).map(tuple),
    st.none() | st.builds(Comparison, st.booleans(), st.floats(0, 1), figures),
    st.none() | st.sampled_from(["tie", "unknown"]),
)
records = st.builds(
    Record,
    st.integers(0, 2**63 - 1),
    figures,
    names,
    names,
    st.floats(0, 2),
    st.none() | figures,
    st.none() | figures,
    names,
    st.lists(faces, max_size=3).map(tuple),
)
ids = st.frozensets(st.text(string.hexdigits, min_size=16, max_size=16), max_size=3)


def record(number: int, domain: str = DOMAIN, at: float | None = None, person: str = "amy") -> Record:
    matches = (Match(person, 0.25, f"{person}/{number}.jpg"), Match("bob", 0.75, "bob/1.jpg"))
    face = SeenFace(matches, matches, Comparison(True, 1.0, 0.0))
    return Record(number, time.time() if at is None else at, domain, TINY, 0.5, 1.0, 2.0, "", (face,))


@pytest.fixture
def pkl(tmp_path: Path, embedder_card: ModelCard) -> PklStore:
    return PklStore(tmp_path / "galleries", embedder_card, "none")


@pytest.fixture
def stores(pkl: PklStore, embedder_card: ModelCard, database: str) -> Iterator[Stores]:
    with PgvectorStore(database, embedder_card, 10.0) as pgvector:
        yield Stores(pkl, pgvector)


@pytest.fixture
def cut_off(pkl: PklStore, embedder_card: ModelCard) -> Iterator[Stores]:
    """The same galleries while the database is down."""
    with PgvectorStore(DEAD, embedder_card, 10.0) as pgvector:
        yield Stores(pkl, pgvector)


def everything(stores: Stores, domain: str = DOMAIN) -> Recorded:
    assert stores.pgvector is not None
    window = Window(domain, TINY, datetime.fromtimestamp(0, UTC), datetime.now(UTC) + timedelta(minutes=1))
    return recorded(stores.pgvector.database, window)


def rows(stores: Stores, query: str) -> list[tuple[object, ...]]:
    assert stores.pgvector is not None
    with stores.pgvector.database.connection() as connection:
        return connection.execute(query).fetchall()


def traces(folder: Path, text: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


@given(records)
def test_a_record_comes_back_from_its_line(one: Record) -> None:
    line = encode(one)
    assert line.count(b"\n") == 1
    assert decode(line) == one
    with pytest.raises(ValueError, match=r"."):
        decode(line[: len(line) // 2])


@given(st.builds(Redaction, figures, names, st.none() | ids, ids))
def test_a_redaction_comes_back_from_its_line(one: Redaction) -> None:
    assert decode_redaction(encode_redaction(one)) == one


def test_a_redaction_takes_names_out_of_earlier_records_alone() -> None:
    sources, people = frozenset({source_id("amy/1.jpg")}), frozenset({source_id("bob")})
    redaction = Redaction(100.0, DOMAIN, sources, people)
    (face,) = (redacted(record(1, at=99.0), [redaction]) or record(0)).faces
    assert face.pkl == face.pgvector == (replace(REDACTED, distance=0.25), replace(REDACTED, distance=0.75))
    for untouched in (record(1, at=100.0), record(1, domain="home", at=99.0)):
        assert redacted(untouched, [redaction]) == untouched
    assert redacted(record(1, at=99.0), [Redaction(100.0, DOMAIN, None)]) is None


def test_the_spool_is_bounded_and_empties_in_order(tmp_path: Path) -> None:
    size = len(encode(record(1)))
    spool = Spool(tmp_path / "comparisons", limit=3 * size + size // 2)
    assert spool.add([record(number) for number in (1, 2)]) == 0
    assert spool.add([record(number) for number in (3, 4, 5)]) == 2
    assert spool.waiting() == 3
    got: list[int] = []

    def fail(batch: Sequence[Record]) -> None:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable, match="away"):
        spool.replay(fail)
    assert spool.replay(lambda batch: got.extend(one.request for one in batch))
    assert not spool.replay(fail)
    assert got == [1, 2, 3]
    assert spool.waiting() == spool.size == 0


def test_records_are_counted_while_others_empty_the_spool(tmp_path: Path) -> None:
    spool, done = Spool(tmp_path / "comparisons"), threading.Event()

    def fill_and_empty() -> None:
        while not done.is_set():
            spool.add([record(1)])
            spool.replay(lambda _records: None)

    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(fill_and_empty)
        try:
            counts = {spool.waiting() for _ in range(5000)}
        finally:
            done.set()
        worker.result()
    assert counts <= {0, 1}


def test_a_writer_that_is_killed_leaves_whole_lines(tmp_path: Path) -> None:
    """What it had kept is there, and the next writer goes on behind what it left."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from test_recording import record; from matchers.recording.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]))\n"
        "for number in range(10**6):\n    spool.add([record(number)]); print(number, flush=True)"
    )
    folder = tmp_path / "comparisons"
    command = [sys.executable, "-c", script, str(folder), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 50:
                break
        os.kill(process.pid, signal.SIGKILL)
    spool = Spool(folder)
    (segment,) = folder.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes() + encode(record(1))[:30])
    spool.add([record(10**7)])
    got: list[int] = []
    spool.replay(lambda batch: got.extend(one.request for one in batch))
    assert got[:51] == list(range(51))
    assert got[-1] == 10**7


def test_what_waits_comes_to_postgresql_once(stores: Stores, cut_off: Stores) -> None:
    """Even when it is brought there twice."""
    assert cut_off.comparisons.spool.add([record(1), record(2)]) == 0
    with pytest.raises(StoreUnavailable):
        cut_off.comparisons.replay()
    segment = next(stores.comparisons.spool.root.glob("*.jsonl"))
    kept = segment.read_bytes()
    assert stores.comparisons.replay()
    segment.write_bytes(kept)
    assert stores.comparisons.replay()
    assert (everything(stores).summary.requests, stores.comparisons.spool.waiting()) == (2, 0)


@pytest.mark.parametrize("away", [False, True], ids=["PostgreSQL there", "PostgreSQL away"])
def test_a_deleted_person_is_named_nowhere(stores: Stores, cut_off: Stores, away: bool) -> None:
    """Neither what is in PostgreSQL, nor what waits, nor what another worker has in its memory yet."""
    write_both(stores, DOMAIN, make_faces(6), ())
    late = record(3, person="p0")
    stores.comparisons.write([record(1, person="p0"), record(2, person="p1")])
    stores.comparisons.spool.add([record(4, person="p0"), record(5, person="p1")])
    delete_person(cut_off if away else stores, DOMAIN, "p0")
    assert recover(stores) == {}
    stores.comparisons.write([late])
    while stores.comparisons.replay():
        pass
    people = {person for (person,) in rows(stores, "SELECT person FROM face_service.compared_names")}
    assert people == {"p1", "bob"}
    assert not traces(stores.comparisons.spool.root, b"p0")
    assert everything(stores).summary.comparisons == 5


def test_a_renamed_person_keeps_their_comparisons(stores: Stores) -> None:
    write_both(stores, DOMAIN, make_faces(6), ())
    stores.comparisons.write([record(1, person="p0")])
    rename_person(stores, DOMAIN, "p0", "zoe")
    named = set(rows(stores, "SELECT person, source FROM face_service.compared_names"))
    assert named == {("zoe", "zoe/1.jpg"), ("bob", "bob/1.jpg")}


def test_age_and_number_are_bounded(pkl: PklStore, embedder_card: ModelCard, database: str) -> None:
    with PgvectorStore(database, embedder_card, 10.0) as pgvector:
        stores = Stores(pkl, pgvector, retention=Retention(days=1, faces=3))
        now = time.time()
        stores.comparisons.write([record(number, at=now - number) for number in range(10)])
        stores.comparisons.write([record(number, "home", at=now - number * 86400) for number in range(3)])
        stores.comparisons.prune()
        assert [everything(stores, domain).summary.comparisons for domain in (DOMAIN, "home")] == [4, 1]
        stores.comparisons.forget("home", None, erase=True)
        assert everything(stores, "home").summary.comparisons == 0


def test_outcomes_are_kept_with_reasons_and_dropped_when_there_is_no_room(stores: Stores) -> None:
    faces = make_faces(6)
    write_both(stores, DOMAIN, faces, ())
    assert stores.pgvector is not None
    stores.pgvector.apply(DOMAIN, (), [faces[0].source])
    searcher = Searcher(stores.pkl, stores.pgvector, CircuitBreaker(), 10.0)
    queries = faces[0].embedding[None]
    recorder = Recorder(stores, TINY, room=2)
    for _ in range(3):
        recorder.record(searcher.search(queries, DOMAIN, "dual", 5), DOMAIN, 0.5, time.time())
    recorder.record(searcher.search(queries, DOMAIN, "pkl_only", 5), DOMAIN, 0.5, time.time())
    assert (recorder.waiting, recorder.dropped) == (2, 1)
    recorder.close()
    found = everything(stores)
    assert (found.summary.requests, found.summary.comparisons, found.summary.failures) == (2, 2, 0)
    assert found.summary.reasons == {"missing_in_pgvector": 2}
    first = found.disagreements[0]
    assert (first.pkl[0].source, first.pkl[0].distance < 1e-6) == (faces[0].source, True)
    assert faces[0].source not in {match.source for match in first.pgvector}
    assert (recorder.waiting, recorder.written, sum(bucket.requests for bucket in found.series)) == (0, 2, 2)


def test_what_is_recorded_while_postgresql_is_away_waits(stores: Stores, cut_off: Stores) -> None:
    write_both(stores, DOMAIN, make_faces(6), ())
    searcher = Searcher(cut_off.pkl, cut_off.pgvector, CircuitBreaker(), 10.0)
    recorder = Recorder(cut_off, TINY)
    outcome = searcher.search(make_faces(1)[0].embedding[None], DOMAIN, "dual", 5)
    recorder.record(outcome, DOMAIN, 0.5, time.time())
    recorder.flush()
    assert stores.comparisons.spool.waiting() == 1
    assert stores.comparisons.replay()
    found = everything(stores)
    assert (found.summary.requests, found.summary.failures, found.summary.comparisons) == (1, 1, 0)
    assert "PostgreSQL" in found.failures[0].error


@settings(max_examples=200)
@given(st.floats(0, 1e9), st.integers(1, 500))
def test_buckets_are_never_more_than_asked_for(seconds: float, buckets: int) -> None:
    assert seconds / bucket_width(timedelta(seconds=seconds), buckets) <= buckets * (1 + 1e-9)


def test_moments() -> None:
    assert abs(datetime.now(UTC) - timedelta(hours=24) - moment("24h")) < timedelta(minutes=1)
    assert moment("2026-01-31T08:00:00Z") == moment("2026-01-31T08:00:00") == datetime(2026, 1, 31, 8, tzinfo=UTC)
    assert moment("2026-01-31T08:00:00 01:00") == datetime(2026, 1, 31, 7, tzinfo=UTC)
    for text in ("", "yesterday", "5 weeks", "2026-02-30", "999999999d"):
        with pytest.raises(ValueError, match="is no moment"):
            moment(text)
