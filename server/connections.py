"""Limits of a connection that uvicorn does not set: how long the head of a request may take, and how large it may be.

Without them a client that sends a head drop by drop, or nothing, holds its connection for ever (Slowloris), and a
head without an end fills the memory.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.errors import ApiError
from server.observe import SECURITY

logger = logging.getLogger(__name__)

# Closed at once, what still comes would make the kernel reset the connection, and the client would not see the answer.
_LINGER_SECONDS = 1.0


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's own, and what it refuses is told as the API tells it.

    Attributes:
        head_seconds: from the connection, or the first byte after an answer, until the head of the next request is
            there; what is left of a body that nobody waits for any more must have come by then, too.
        head_bytes: how large the head may be, give or take what comes at once.
    """

    head_seconds = 10.0
    head_bytes = 64 * 1024

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._overdue: asyncio.TimerHandle | None = None
        self._head: int | None = 0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        if self._head is not None:
            self._head += len(data)
            if self._head > self.head_bytes:
                message = f"The head of the request has more than {self.head_bytes // 1024} KiB."
                self._turn_away(ApiError(431, "head_too_large", message))
                return
        if self._overdue is None and not self._is_answering():
            self._hurry()

    def on_message_begin(self) -> None:
        self._head = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head = None
        self._relax()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._turn_away(ApiError(400, "invalid_http", f"This is no HTTP request that can be read: {msg}"))

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _hurry(self) -> None:
        self._overdue = self.loop.call_later(self.head_seconds, self._give_up)

    def _relax(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _give_up(self) -> None:
        self._overdue = None
        if self._refused or self.transport.is_closing() or self._is_answering():
            return
        if self._head:
            message = f"The head of the request was not there within {self.head_seconds:g} s."
            self._turn_away(ApiError(408, "head_timeout", message))
        else:
            self.transport.close()

    def _turn_away(self, error: ApiError) -> None:
        """Answer, unless the application is answering an earlier request, and close once the client has had the time to
        read it."""
        logger.info("a connection is closed: %s", error.message)
        self._refused = True
        self._relax()
        if self._is_answering():
            self.transport.close()
            return
        answer: Response = error.response()
        headers = {**dict(answer.headers), **{name.lower(): value for name, value in SECURITY.items()}}
        lines = [f"{name}: {value}\r\n" for name, value in {**headers, "connection": "close"}.items()]
        self.transport.write(STATUS_LINE[error.status] + "".join(lines).encode() + b"\r\n" + bytes(answer.body))
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)
