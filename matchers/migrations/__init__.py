"""The database schema, as numbered SQL files that are applied once each, in order."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import psycopg
from psycopg import errors

from matchers.errors import StoreUnavailable

# Iterative index scans came with pgvector 0.8.0 (its CHANGELOG).
_VECTOR_MINIMUM = (0, 8)
# "face" in ASCII: any number will do that other programs on the same database are unlikely to lock.
_LOCK = 0x66616365


def migrate(connection: psycopg.Connection[Any]) -> None:
    """Bring the schema up to date; of several processes at once, one does it and the others wait.

    Args:
        connection: in autocommit mode.

    Raises:
        StoreUnavailable: pgvector is missing, too old or may not be installed by this user; or the schema is newer
            than this program.
        psycopg.Error: anything else that the server says.
    """
    scripts = _scripts()
    with connection.transaction():
        _lock(connection)
        _ensure_vector(connection)
        _ensure_journal(connection)
        if (newest := _version(connection)) > len(scripts):
            raise StoreUnavailable(
                f"the database schema is at version {newest}, this program knows {len(scripts)}: "
                "install the newer program"
            )
    for version, (name, script) in enumerate(scripts, start=1):
        with connection.transaction():
            _lock(connection)
            if _version(connection) < version:
                connection.execute(script)
                connection.execute(
                    "INSERT INTO face_service.schema_migrations (version, name) VALUES (%s, %s)", (version, name)
                )


def _scripts() -> list[tuple[str, bytes]]:
    entries = files(__name__).iterdir()
    found = sorted((entry.name, entry.read_bytes()) for entry in entries if entry.name.endswith(".sql"))
    for version, (name, _) in enumerate(found, start=1):
        if int(name.partition("_")[0]) != version:
            raise ValueError(f"migration {name} should have number {version:04}")
    return found


def _lock(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


def _ensure_journal(connection: psycopg.Connection[Any]) -> None:
    row = connection.execute("SELECT to_regclass('face_service.schema_migrations') IS NULL").fetchone()
    if row is not None and row[0]:
        connection.execute("CREATE SCHEMA IF NOT EXISTS face_service")
        connection.execute(
            "CREATE TABLE face_service.schema_migrations "
            "(version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )


def _version(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT coalesce(max(version), 0) FROM face_service.schema_migrations").fetchone()
    return int(row[0]) if row is not None else 0


def _ensure_vector(connection: psycopg.Connection[Any]) -> None:
    query = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    row = connection.execute(query).fetchone()
    if row is None:
        try:
            connection.execute("CREATE EXTENSION vector")
        except errors.InsufficientPrivilege as error:
            raise StoreUnavailable(
                "the database user may not install pgvector: let a superuser run `CREATE EXTENSION vector` "
                "in this database"
            ) from error
        except (errors.FeatureNotSupported, errors.UndefinedFile) as error:
            raise StoreUnavailable(
                "pgvector is not installed on the database server: install it there, then run "
                "`CREATE EXTENSION vector` in this database"
            ) from error
        row = connection.execute(query).fetchone()
    version = str(row[0]) if row is not None else ""
    if tuple(int(part) for part in version.split(".")[:2]) < _VECTOR_MINIMUM:
        raise StoreUnavailable(
            f"pgvector is at version {version}, 0.8 or newer is needed: upgrade it on the database server, "
            "then run `ALTER EXTENSION vector UPDATE`"
        )
