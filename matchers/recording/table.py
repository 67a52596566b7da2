"""Records in PostgreSQL: written in batches, forgotten by person, pruned by age and number."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from matchers.base import Match, source_id
from matchers.database import LONG_SECONDS, Database
from matchers.erasure import erase
from matchers.recording.record import Record, SeenFace

_DAY = 86400.0
# "comp" in ASCII: of several workers, one prunes.
_PRUNE_LOCK = 0x636F6D70
_NAMES = sql.Identifier("face_service", "compared_names")
_INSERT = (
    "INSERT INTO face_service.comparisons (domain, at, request, face, model, threshold, pkl_ms, pgvector_ms, error, "
    "top1_match, top5_overlap, distance_delta, reason, pkl, pkl_distances, pgvector, pgvector_distances) "
    "VALUES (%s, to_timestamp(%s), %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::bigint[], %s::float8[], "
    "%s::bigint[], %s::float8[]) ON CONFLICT DO NOTHING"
)
# A row of compared_names outlives every comparison that it is used for.
_FIND_NAMES = (
    "SELECT id, person, source FROM face_service.compared_names "
    "WHERE domain = %s AND source_id = ANY(%s) AND created_at > now() - make_interval(secs => %s)"
)
_ADD_NAMES = (
    "INSERT INTO face_service.compared_names (domain, person, source, person_id, source_id) "
    "SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) RETURNING id, person, source"
)
_Names = Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Retention:
    """How long comparisons are kept.

    Attributes:
        days: at most.
        faces: of one domain at most, the newest.
    """

    days: float = 7.0
    faces: int = 200_000


class ComparisonTable:
    """The comparisons in one database. Thread-safe.

    Every method raises :class:`matchers.errors.StoreUnavailable` when the database cannot answer.
    """

    def __init__(self, database: Database, retention: Retention) -> None:
        self._database = database
        self._retention = retention

    def write(self, records: Sequence[Record]) -> None:
        """Add ``records`` in one transaction; those that are there already stay as they are."""
        with self._database.connection() as connection, connection.transaction():
            names = {
                domain: self._names(connection, domain, [one for one in records if one.domain == domain])
                for domain in {record.domain for record in records}
            }
            rows = [
                row
                for record in records
                for number, face in enumerate(record.faces)
                for row in [_row(record, number, face, names[record.domain])]
            ]
            with connection.cursor() as cursor:
                cursor.executemany(_INSERT, rows)

    def forget(self, domain: str, sources: Iterable[str], people: Iterable[str], *, thorough: bool = False) -> None:
        """Take the names of ``people`` and of the pictures ``sources`` out of every comparison; the figures stay.

        Args:
            thorough: leave no trace in the database's files.
        """
        query = (
            "DELETE FROM face_service.compared_names WHERE domain = %s AND (source_id = ANY(%s) OR person_id = ANY(%s))"
        )
        parameters = (domain, [source_id(source) for source in sources], [source_id(person) for person in people])
        with self._database.own_connection(LONG_SECONDS) as connection:
            if connection.execute(query, parameters).rowcount and thorough:
                erase(connection, _NAMES)

    def rename(self, domain: str, person: str, sources: Mapping[str, str]) -> None:
        """The pictures ``sources`` (old name to new name) are ``person``'s from now on, and nothing tells who they
        were."""
        query = (
            "UPDATE face_service.compared_names SET person = %s, person_id = %s, source = %s, source_id = %s "
            "WHERE domain = %s AND source_id = %s"
        )
        rows = [
            (person, source_id(person), new, source_id(new), domain, source_id(old)) for old, new in sources.items()
        ]
        with self._database.own_connection(LONG_SECONDS) as connection:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(query, rows)
                renamed = cursor.rowcount
            if renamed:
                erase(connection, _NAMES)

    def drop(self, domain: str) -> None:
        """Forget everything about ``domain``; no name stays in the database's files."""
        with self._database.own_connection(LONG_SECONDS) as connection:
            connection.execute("DELETE FROM face_service.comparisons WHERE domain = %s", (domain,))
            if connection.execute("DELETE FROM face_service.compared_names WHERE domain = %s", (domain,)).rowcount:
                erase(connection, _NAMES)

    def prune(self) -> int:
        """Delete what is older or more than is kept, unless another worker does; gives the number of comparisons."""
        oldest = "DELETE FROM face_service.comparisons WHERE at < now() - make_interval(secs => %s)"
        surplus = (
            "DELETE FROM face_service.comparisons WHERE domain = %s AND at < "
            "(SELECT at FROM face_service.comparisons WHERE domain = %s ORDER BY at DESC OFFSET %s LIMIT 1)"
        )
        names = "DELETE FROM face_service.compared_names WHERE created_at < now() - make_interval(secs => %s)"
        seconds = self._retention.days * _DAY
        with self._database.own_connection(LONG_SECONDS) as connection:
            with connection.transaction():
                row = connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (_PRUNE_LOCK,)).fetchone()
                if row is None or not row[0]:
                    return 0
                gone = connection.execute(oldest, (seconds,)).rowcount
                domains = connection.execute("SELECT DISTINCT domain FROM face_service.comparisons").fetchall()
                for (domain,) in domains:
                    gone += connection.execute(surplus, (domain, domain, self._retention.faces)).rowcount
                forgotten = connection.execute(names, (2 * seconds,)).rowcount
            if forgotten:
                erase(connection, _NAMES)
        return gone

    def _names(self, connection: psycopg.Connection[Any], domain: str, records: Sequence[Record]) -> _Names:
        """Numbers of all people and pictures in ``records``, which belong to ``domain``."""
        wanted = {
            (match.person, match.source)
            for record in records
            for face in record.faces
            for match in (*face.pkl, *face.pgvector)
            if match.person
        }
        if not wanted:
            return {}
        digests = sorted({source_id(source) for _, source in wanted})
        found = connection.execute(_FIND_NAMES, (domain, digests, self._retention.days * _DAY)).fetchall()
        names = {(person, source): number for number, person, source in found}
        missing = sorted(wanted - names.keys())
        if missing:
            people, sources = (list(column) for column in zip(*missing, strict=True))
            columns = (people, sources, list(map(source_id, people)), list(map(source_id, sources)))
            added = connection.execute(_ADD_NAMES, (domain, *columns)).fetchall()
            names.update({(person, source): number for number, person, source in added})
        return names


def _row(record: Record, number: int, face: SeenFace, names: _Names) -> tuple[Any, ...]:
    comparison = face.comparison
    agreement = (
        (None, None, None)
        if comparison is None
        else (comparison.top1_match, comparison.top5_overlap, comparison.max_distance_delta)
    )
    return (
        record.domain,
        record.at,
        record.request,
        number,
        record.model,
        record.threshold,
        record.pkl_ms,
        record.pgvector_ms,
        record.error,
        *agreement,
        face.reason,
        *_columns(face.pkl, names),
        *_columns(face.pgvector, names),
    )


def _columns(matches: Collection[Match], names: _Names) -> tuple[list[int], list[float]]:
    # Number 0 names nobody.
    return [names.get((match.person, match.source), 0) for match in matches], [match.distance for match in matches]
