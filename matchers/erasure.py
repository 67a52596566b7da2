"""Deleted rows, taken out of PostgreSQL's files.

``DELETE`` marks rows, ``VACUUM`` frees their places, and neither overwrites them: the bytes stay in the table's file.
``VACUUM FULL`` writes the table and its indexes anew. The write-ahead log keeps what was ever inserted until its
segments go, which a checkpoint sees to once the log has moved on to a new segment (PostgreSQL's manual, "WAL
Configuration"); the embedded server deletes old segments (``wal_recycle=off``), another one may use their files again.
"""

from __future__ import annotations

import logging
from typing import Any

import psycopg
from psycopg import errors, sql

_log = logging.getLogger("matchers.erasure")


def erase(connection: psycopg.Connection[Any], table: sql.Composable | None) -> None:
    """Write ``table`` anew without its deleted rows, and let go of the old write-ahead log.

    The user of ``connection`` must own the table. What the server allows superusers only is left out for others, and
    for servers that archive their log; the log says so.

    Args:
        connection: in autocommit mode.
        table: None when the rows went with their table.
    """
    if table is not None:
        connection.execute(sql.SQL("VACUUM (FULL) {}").format(table))
    try:
        row = connection.execute("SELECT current_setting('archive_mode')").fetchone()
        if row is not None and row[0] == "off":
            connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")
    except errors.InsufficientPrivilege:
        _log.info("PostgreSQL's write-ahead log keeps deleted rows until it is recycled: this user may not checkpoint")
