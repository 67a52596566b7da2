"""A prepared search for several embeddings, asked and read with libpq itself.

A search of a small domain takes PostgreSQL a tenth of a millisecond, and a cursor of psycopg several times that: its
code falls out of the processor's caches between two requests. And a cursor only waits, while there is a second gallery
to look through.
"""

from __future__ import annotations

import select
import struct
from collections.abc import Callable
from itertools import count
from weakref import WeakKeyDictionary

import numpy as np
from psycopg import errors, pq

from matchers.base import FloatArray
from matchers.database import Connection

Row = tuple[int, str, float, str]
"""Number of the embedding, from 1; person; distance; source."""

_KEPT = 100
"""Prepared searches of one connection: as many as psycopg keeps of its own."""
_BINARY = pq.Format.BINARY
_DONE = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
_NUMBERS = count()
_INTEGER, _DOUBLE = struct.Struct("!q"), struct.Struct("!d")


class Questions:
    """Asks searches. Any number of threads may, each over a connection of its own."""

    def __init__(self) -> None:
        self._prepared: WeakKeyDictionary[Connection, dict[bytes, bytes]] = WeakKeyDictionary()

    def ask(
        self, connection: Connection, query: bytes, embeddings: FloatArray, meanwhile: Callable[[], None] | None = None
    ) -> list[Row]:
        """Rows of ``query``, whose columns are those of :data:`Row` and whose parameter ``$1`` is a ``vector[]``.

        Args:
            connection: in autocommit, with the type ``vector`` registered.
            embeddings: (n, d) float32.
            meanwhile: called while the server works; raises nothing.

        Raises:
            psycopg.Error: what the server says, or that it went away.
        """
        try:
            result = self._result(connection, query, embeddings, meanwhile)
        except errors.InvalidSqlStatementName:
            # psycopg drops everything that is prepared when a table was dropped or altered.
            self._prepared.pop(connection, None)
            result = self._result(connection, query, embeddings, None)
        encoding = connection.info.encoding
        return [
            (
                _INTEGER.unpack(_value(result, row, 0))[0],
                _value(result, row, 1).decode(encoding),
                _DOUBLE.unpack(_value(result, row, 2))[0],
                _value(result, row, 3).decode(encoding),
            )
            for row in range(result.ntuples)
        ]

    def _result(
        self, connection: Connection, query: bytes, embeddings: FloatArray, meanwhile: Callable[[], None] | None
    ) -> pq.abc.PGresult:
        vector = connection.adapters.types["vector"]
        name = self._prepare(connection, query, vector.array_oid)
        connection.pgconn.send_query_prepared(name, [_array(embeddings, vector.oid)], [_BINARY], _BINARY)
        _send(connection.pgconn)
        if meanwhile is not None:
            meanwhile()
        return _receive(connection)

    def _prepare(self, connection: Connection, query: bytes, parameter: int) -> bytes:
        names = self._prepared.setdefault(connection, {})
        if query not in names:
            if len(names) >= _KEPT:
                connection.execute(b"DEALLOCATE " + names.pop(next(iter(names))))
            name = b"face_search_%d" % next(_NUMBERS)
            connection.pgconn.send_prepare(name, query, [parameter])
            _send(connection.pgconn)
            _receive(connection)
            names[query] = name
        return names[query]


def _array(embeddings: FloatArray, oid: int) -> bytes:
    """``vector[]`` as PostgreSQL (``array_recv``) and pgvector (``vector_recv``) read it: one dimension that starts at
    1, no nulls; of each vector its bytes, numbers, a zero, and the numbers, all big-endian."""
    rows, columns = embeddings.shape
    heads = np.frombuffer(struct.pack("!iHH", 4 + 4 * columns, columns, 0), np.uint8)
    numbers = np.ascontiguousarray(embeddings, ">f4").view(np.uint8).reshape(rows, -1)
    vectors = np.concatenate([np.broadcast_to(heads, (rows, len(heads))), numbers], axis=1)
    return struct.pack("!iiIii", 1, 0, oid, rows, 1) + vectors.tobytes()


def _value(result: pq.abc.PGresult, row: int, column: int) -> bytes:
    value = result.get_value(row, column)
    assert value is not None, "no column of a search may be null"
    return bytes(value)


def _send(pgconn: pq.abc.PGconn) -> None:
    while pgconn.flush():
        _wait(pgconn, select.POLLIN | select.POLLOUT)
        # The server may want to be rid of something before it takes more.
        pgconn.consume_input()


def _receive(connection: Connection) -> pq.abc.PGresult:
    """The one result of what was sent.

    libpq would hold the interpreter's lock while it waits, and nobody could cut it off.
    """
    pgconn = connection.pgconn
    results = []
    while True:
        while pgconn.is_busy():
            _wait(pgconn, select.POLLIN)
            pgconn.consume_input()
        if (result := pgconn.get_result()) is None:
            break
        results.append(result)
    if results[0].status not in _DONE:
        raise errors.error_from_result(results[0], connection.info.encoding)
    return results[0]


def _wait(pgconn: pq.abc.PGconn, events: int) -> None:
    waiting = select.poll()
    waiting.register(pgconn.socket, events)
    waiting.poll()
