"""How many bytes of uploads are held in memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import overloaded


class Intake:
    """The uploads of this process together. For the event loop only."""

    def __init__(self, limit: int) -> None:
        """``limit``: bytes."""
        self.held = 0
        self._limit = limit

    @contextmanager
    def upload(self) -> Iterator[Incoming]:
        """One upload; its bytes count until the end of the block."""
        incoming = Incoming(self)
        try:
            yield incoming
        finally:
            self.held -= incoming.size

    def take(self, size: int) -> None:
        """Make room for ``size`` more bytes.

        Raises:
            ApiError: 503, there is none until others are done.
        """
        if self.held + size > self._limit:
            raise overloaded()
        self.held += size


class Incoming:
    """One upload as it comes in."""

    def __init__(self, intake: Intake) -> None:
        self.size = 0
        self._intake = intake

    def add(self, size: int) -> None:
        """``size`` more bytes came.

        Raises:
            ApiError: 503, too much is held already.
        """
        self._intake.take(size)
        self.size += size
