"""Connections to a PostgreSQL database: pooled, checked, cut off in time, with errors that say what to do."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool, PoolTimeout

from matchers.errors import StoreUnavailable
from matchers.watchdog import Watchdog

Connection = psycopg.Connection[Any]

LONG_SECONDS = 600.0
"""For what may take long: writing, reading everything."""

_POOL_SIZE = 8
# How long to wait for a pooled connection before asking the server directly, which tells at once why there is none.
_PATIENCE = 0.25
_LEAST = 0.001

_logger = logging.getLogger(__name__)


class Database:
    """A database that is used from many threads; nothing is asked of it before the first use.

    A database that was down is used as soon as it is back. Every method but :meth:`open` and :meth:`close` raises
    :class:`StoreUnavailable` when the database cannot answer.

    Args:
        conninfo: ``postgresql://`` URL or ``key=value`` connection string; or what gives it once the server is up, and
            raises :class:`StoreUnavailable` until then.
        timeout: seconds until a short question is given up.
        define: makes schema and tables on the connection that it gets; called before the first use, and again after
            they have gone.
        settings: what each pooled connection sets, by the name of the parameter.

    Raises:
        StoreUnavailable: the connection string cannot be read.
    """

    def __init__(
        self,
        conninfo: str | Callable[[], str],
        timeout: float,
        define: Callable[[Connection], None],
        settings: Mapping[str, str],
    ) -> None:
        self.conninfo = conninfo
        self.timeout = timeout
        self._define = define
        self._settings = settings
        self._parameters = _parameters(conninfo, timeout) if isinstance(conninfo, str) else {}
        self._ready = False
        self._preparing = threading.Lock()
        self._watchdog = Watchdog()
        self._pool = self._new_pool()

    def open(self) -> None:
        """Allow use, also after :meth:`close`. Returns at once, whether the database is up or not."""
        with self._preparing:
            if self._pool.closed:
                self._pool = self._new_pool()
                self._ready = False

    def close(self) -> None:
        """Close all connections; may be called twice."""
        self._pool.close()

    def define(self) -> None:
        """Make schema and tables; done by itself on the first use."""
        self._locate()
        with self._translated(), self._beside(LONG_SECONDS) as connection:
            self._define(connection)

    def forget(self) -> None:
        """Make schema and tables again at the next use."""
        self._ready = False

    def connections(self) -> Mapping[str, int]:
        """How many connections the pool has (``open``) and how many are ``idle``; how many calls are ``waiting``."""
        figures = self._pool.get_stats()
        names = {"open": "pool_size", "idle": "pool_available", "waiting": "requests_waiting"}
        return {name: figures.get(figure, 0) for name, figure in names.items()}

    @contextmanager
    def connection(self, seconds: float | None = None) -> Iterator[Connection]:
        """A working connection that is cut off after ``seconds``, by default after the timeout with all waiting.

        With ``seconds`` the server is asked first whether it answers at all, for the timeout at most.
        """
        deadline = time.monotonic() + self.timeout
        self._prepare(deadline)
        # Another one may take its place before the connection is given back.
        pool = self._pool
        with self._translated():
            connection = self._checkout(pool, deadline, sure=seconds is not None)
            try:
                with self._cut_off(connection, deadline if seconds is None else time.monotonic() + seconds):
                    yield connection
            finally:
                pool.putconn(connection)

    @contextmanager
    def connection_at_hand(self, seconds: float) -> Iterator[Connection | None]:
        """A connection that is idle at this moment, cut off after ``seconds``; None when there is none, so that nobody
        waits for one to be made."""
        pool = self._pool
        connection = self._at_hand(pool)
        if connection is None:
            yield None
            return
        with self._translated():
            try:
                with self._cut_off(connection, time.monotonic() + seconds):
                    yield connection
            finally:
                pool.putconn(connection)

    @contextmanager
    def own_connection(self, seconds: float) -> Iterator[Connection]:
        """A connection beside the pool, for long work with settings of its own."""
        self._prepare(time.monotonic() + self.timeout)
        with self._translated(), self._beside(seconds) as connection:
            yield connection

    def _new_pool(self) -> ConnectionPool[Connection]:
        return ConnectionPool(
            kwargs={**self._parameters, "autocommit": True},
            min_size=1,
            max_size=_POOL_SIZE,
            open=False,
            configure=self._configure,
            reconnect_timeout=1.0,
            name="pgvector",
        )

    def _configure(self, connection: Connection) -> None:
        set_timeouts(connection, self.timeout, self.timeout)
        find_vector(connection)
        for name, value in self._settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        register_vector(connection)

    def _prepare(self, deadline: float) -> None:
        if self._ready:
            return
        if not self._preparing.acquire(timeout=_left(deadline)):
            raise StoreUnavailable(f"{self._where()} was not ready within {self.timeout:g} s")
        try:
            if not self._ready:
                self.define()
                if self._pool.closed:
                    self._pool.open(wait=False)
                self._ready = True
        finally:
            self._preparing.release()

    def _locate(self) -> None:
        """Ask where the server is, if that was not known from the beginning."""
        if not isinstance(self.conninfo, str):
            parameters = _parameters(self.conninfo(), self.timeout)
            if parameters != self._parameters:
                self._pool.close()
                self._parameters = parameters
                self._pool = self._new_pool()

    def _checkout(self, pool: ConnectionPool[Connection], deadline: float, *, sure: bool) -> Connection:
        try:
            connection = pool.getconn(_left(deadline, _PATIENCE))
        except PoolTimeout:
            _logger.debug("no pooled connection within %g s, asking the server directly", _PATIENCE)
        else:
            if (_is_quiet(connection) and not sure) or self._is_alive(connection, deadline):
                return connection
            pool.putconn(connection)
            if time.monotonic() >= deadline:
                raise StoreUnavailable(f"{self._where()} did not answer within {self.timeout:g} s")
        with self._beside(_left(deadline)):
            pool.check()
        return pool.getconn(_left(deadline))

    def _at_hand(self, pool: ConnectionPool[Connection]) -> Connection | None:
        if not self._ready:
            return None
        try:
            connection = pool.getconn(_LEAST)
        except psycopg.Error:
            return None
        if _is_quiet(connection):
            return connection
        pool.putconn(connection)
        return None

    @contextmanager
    def _beside(self, seconds: float) -> Iterator[Connection]:
        """A connection beside the pool: when the server is down it fails at once and tells the reason."""
        deadline = time.monotonic() + seconds
        patience = max(2, math.ceil(min(seconds, self.timeout)))
        parameters = {**self._parameters, "connect_timeout": patience}
        with psycopg.connect(**parameters, autocommit=True) as connection, self._cut_off(connection, deadline):
            set_timeouts(connection, seconds, self.timeout)
            yield connection

    def _is_alive(self, connection: Connection, deadline: float) -> bool:
        try:
            with self._cut_off(connection, deadline):
                connection.execute("")
        except psycopg.OperationalError:
            return False
        return True

    def _cut_off(self, connection: Connection, deadline: float) -> AbstractContextManager[None]:
        """Shut the connection's socket down at ``deadline``: a server that hangs ends in an OperationalError.

        ``statement_timeout`` is kept by the server itself, so it does not help when that is what hangs.
        """

        def shut_down() -> None:
            if not connection.closed:
                _shut_down(connection)

        return self._watchdog.at(max(deadline, time.monotonic() + _LEAST), shut_down)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeout as error:
            raise StoreUnavailable(f"no connection to {self._where()} got free within {self.timeout:g} s") from error
        except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
            self._ready = False
            raise StoreUnavailable(f"the tables in {self._where()} are gone; the next use makes them anew") from error
        except errors.QueryCanceled as error:
            raise StoreUnavailable(f"{self._where()} did not answer in time") from error
        except psycopg.Error as error:
            reason = str(error).strip().partition("\n")[0]
            raise StoreUnavailable(f"{self._where()} cannot answer: {reason}") from error

    def _where(self) -> str:
        host = self._parameters.get("host") or "the default host"
        return f"PostgreSQL at {host}, database {self._parameters.get('dbname') or 'default'}"


def _parameters(conninfo: str, timeout: float) -> dict[str, Any]:
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.Error:
        # The cause would quote the string, with the password in it.
        raise StoreUnavailable(
            "the database connection string cannot be read: DATABASE_URL must look like "
            "postgresql://user:password@host:5432/database"
        ) from None
    return {
        "application_name": "face-service",
        "connect_timeout": max(2, math.ceil(timeout)),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": math.ceil(timeout * 1000),
        **given,
    }


def lock_key(*parts: str) -> int:
    """Key of an advisory lock that stands for ``parts``."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


def _left(deadline: float, most: float = math.inf) -> float:
    return max(_LEAST, min(most, deadline - time.monotonic()))


def set_timeouts(connection: Connection, statement: float, lock: float, *, local: bool = False) -> None:
    """Seconds that a statement and a wait for a lock may take, for the session or, ``local``, the transaction."""
    connection.execute(
        "SELECT set_config('statement_timeout', %s, %s), set_config('lock_timeout', %s, %s)",
        (str(math.ceil(statement * 1000)), local, str(math.ceil(lock * 1000)), local),
    )


def find_vector(connection: Connection) -> None:
    """Look for types and operators in the schema of pgvector and in no other."""
    connection.execute(
        "SELECT set_config('search_path', quote_ident(nspname), false) "
        "FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'vector'"
    )


def _is_quiet(connection: Connection) -> bool:
    """Whether the server has sent nothing unasked: one that ends closes its connections, which can be read."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


def _shut_down(connection: Connection) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as handle:
        handle.shutdown(socket.SHUT_RDWR)
