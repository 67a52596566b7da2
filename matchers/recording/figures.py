"""What the recorded comparisons of a domain say together; PostgreSQL does the sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from matchers.base import Match
from matchers.compare import Comparison
from matchers.database import Database
from matchers.recording.record import REDACTED
from matchers.summary import Spread, Summary

_SECONDS = 120.0
BUCKET_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 24 * 3600)

_PERCENTILES = "percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY {column}) {filter}"
_WHERE = (
    "FROM face_service.comparisons WHERE domain = %(domain)s AND model = %(model)s "
    "AND at >= %(since)s AND at < %(until)s"
)
_FIRST = "FILTER (WHERE face = 0)"
_SUMMARY = (
    f"SELECT count(*) {_FIRST}, count(*) FILTER (WHERE face = 0 AND pgvector_ms IS NULL), count(top1_match), "
    "avg(top1_match::int)::float8, avg(top5_overlap), count(reason), min(at), "
    + ", ".join(
        f"avg({column}) {chosen}, {_PERCENTILES.format(column=column, filter=chosen)}, max({column}) {chosen}"
        for column, chosen in (("distance_delta", ""), ("pkl_ms", _FIRST), ("pgvector_ms", _FIRST))
    )
    + f" {_WHERE}"
)
_REASONS = f"SELECT reason, count(*) {_WHERE} AND reason IS NOT NULL GROUP BY reason ORDER BY count(*) DESC, reason"
_SERIES = (
    "SELECT date_bin(make_interval(secs => %(width)s), at, 'epoch') AS bucket, "
    f"count(*) {_FIRST}, count(*) FILTER (WHERE face = 0 AND pgvector_ms IS NULL), count(top1_match), "
    "avg(top1_match::int)::float8, avg(top5_overlap), max(distance_delta), count(reason), "
    + ", ".join(
        f"percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY {column}) {_FIRST}"
        for column in ("pkl_ms", "pgvector_ms")
    )
    + f" {_WHERE} GROUP BY bucket ORDER BY bucket"
)
_DISAGREEMENTS = (
    "SELECT at, request, face, reason, threshold, top1_match, top5_overlap, distance_delta, pkl_ms, pgvector_ms, "
    f"pkl, pkl_distances, pgvector, pgvector_distances {_WHERE} AND reason IS NOT NULL "
    "ORDER BY at DESC, request, face LIMIT %(limit)s"
)
_FAILURES = f"SELECT at, request, error {_WHERE} AND error <> '' AND face = 0 ORDER BY at DESC LIMIT %(limit)s"


@dataclass(frozen=True, slots=True)
class Window:
    """Which comparisons: of a domain and a model (``Record.model``), from ``since`` until before ``until``."""

    domain: str
    model: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Bucket:
    """The figures of a stretch of time that begins ``at``; see :class:`matchers.summary.Summary`."""

    at: datetime
    requests: int
    failures: int
    comparisons: int
    disagreements: int
    top1_rate: float | None
    top5_overlap: float | None
    max_distance_delta: float | None
    pkl_p50: float | None
    pkl_p95: float | None
    pgvector_p50: float | None
    pgvector_p95: float | None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A face about which the stores did not say the same; the attributes are those of ``Record`` and ``SeenFace``."""

    at: datetime
    request: int
    face: int
    reason: str
    threshold: float
    comparison: Comparison
    pkl_ms: float | None
    pgvector_ms: float | None
    pkl: tuple[Match, ...]
    pgvector: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that one store did not answer."""

    at: datetime
    request: int
    error: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """Everything about one window.

    Attributes:
        summary: figures over all of it.
        bucket_seconds: length of a bucket of ``series``.
        series: oldest first; stretches without a request are left out.
        disagreements, failures: the newest first, not more than were asked for.
    """

    window: Window
    summary: Summary
    bucket_seconds: int
    series: Sequence[Bucket]
    disagreements: Sequence[Disagreement]
    failures: Sequence[Failure]


def summary(database: Database, window: Window) -> Summary:
    """The figures of a window.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    with _reading(database) as connection:
        return _summary(connection, window)[0]


def recorded(database: Database, window: Window, limit: int = 50, buckets: int = 60) -> Recorded:
    """Everything about a window.

    Args:
        limit: how many disagreements and failures are listed.
        buckets: at most so many parts of the time in which there were requests.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    with _reading(database) as connection:
        found, first = _summary(connection, window)
        width = bucket_width(window.until - (first or window.until), buckets)
        parameters = {**_parameters(window), "width": width, "limit": limit}
        series = [_bucket(row) for row in connection.execute(_SERIES, parameters)]
        rows = connection.execute(_DISAGREEMENTS, parameters).fetchall()
        names = _names(connection, {number for row in rows for number in (*row[10], *row[12])})
        disagreements = [_disagreement(row, names) for row in rows]
        failures = [Failure(*row) for row in connection.execute(_FAILURES, parameters)]
    return Recorded(window, found, width, series, disagreements, failures)


@contextmanager
def _reading(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose queries see one state, may take longer than a search, and sort in memory."""
    with database.own_connection(_SECONDS) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute("SELECT set_config('work_mem', '64MB', true), set_config('jit', 'off', true)")
        yield connection


def bucket_width(length: timedelta, buckets: int) -> int:
    """Seconds of a bucket, a round number, so that ``length`` has at most ``buckets`` of them."""
    wanted = length.total_seconds() / buckets
    days = BUCKET_SECONDS[-1]
    return next((width for width in BUCKET_SECONDS if width >= wanted), -int(-wanted // days) * days)


def _parameters(window: Window) -> dict[str, Any]:
    return {"domain": window.domain, "model": window.model, "since": window.since, "until": window.until}


def _summary(connection: psycopg.Connection[Any], window: Window) -> tuple[Summary, datetime | None]:
    """And when the first of these searches began."""
    parameters = _parameters(window)
    row = connection.execute(_SUMMARY, parameters).fetchone()
    assert row is not None
    requests, failures, comparisons, top1_rate, overlap, disagreements, first = row[:7]
    spreads = [_spread(row[start : start + 3]) for start in (7, 10, 13)]
    found = Summary(
        requests=requests,
        failures=failures,
        failure_rate=failures / requests if requests else None,
        comparisons=comparisons,
        top1_rate=top1_rate,
        top5_overlap=overlap,
        distance_delta=spreads[0],
        latency_ms={"pkl": spreads[1], "pgvector": spreads[2]},
        disagreements=disagreements,
        reasons=dict(connection.execute(_REASONS, parameters).fetchall()),
    )
    return found, first


def _spread(columns: Sequence[Any]) -> Spread | None:
    mean, percentiles, largest = columns
    if mean is None:
        return None
    p50, p95, p99 = map(float, percentiles)
    return Spread(float(mean), p50, p95, p99, float(largest))


def _bucket(row: Sequence[Any]) -> Bucket:
    at, requests, failures, comparisons, top1_rate, overlap, delta, disagreements, pkl, pgvector = row
    nothing = (None, None)
    return Bucket(
        at,
        requests,
        failures,
        comparisons,
        disagreements,
        top1_rate,
        overlap,
        delta,
        *(pkl or nothing),
        *(pgvector or nothing),
    )


def _names(connection: psycopg.Connection[Any], numbers: set[int]) -> dict[int, tuple[str, str]]:
    query = "SELECT id, person, source FROM face_service.compared_names WHERE id = ANY(%s)"
    return {number: (person, source) for number, person, source in connection.execute(query, (sorted(numbers),))}


def _disagreement(row: Sequence[Any], names: dict[int, tuple[str, str]]) -> Disagreement:
    at, request, face, reason, threshold, top1, overlap, delta, pkl_ms, pgvector_ms = row[:10]
    pkl, pgvector = (_matches(row[start], row[start + 1], names) for start in (10, 12))
    comparison = Comparison(top1, overlap, delta)
    return Disagreement(at, request, face, reason, threshold, comparison, pkl_ms, pgvector_ms, pkl, pgvector)


def _matches(
    numbers: Sequence[int], distances: Sequence[float], names: dict[int, tuple[str, str]]
) -> tuple[Match, ...]:
    nobody = REDACTED.person, REDACTED.source
    told = [names.get(number, nobody) for number in numbers]
    return tuple(Match(person, distance, source) for (person, source), distance in zip(told, distances, strict=True))
