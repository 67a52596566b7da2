"""What the C library's allocator keeps of memory that was freed. Other libraries than glibc are left as they are."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

_M_ARENA_MAX = -8
"""``mallopt``'s number for it (glibc, malloc.h)."""


def share_one_arena() -> None:
    """Let all threads of this process allocate from one place; ``MALLOC_ARENA_MAX``, where it is set, holds.

    By default glibc gives up to eight times as many arenas as there are cores to threads, and each keeps what it once
    needed for a large picture. Threads seldom allocate at the same time here: Python's own objects come from elsewhere,
    and networks reuse what they have.
    """
    if "MALLOC_ARENA_MAX" not in os.environ and (mallopt := _function("mallopt")) is not None:
        mallopt(_M_ARENA_MAX, 1)


def return_memory() -> None:
    """Give what is free back to the system: after a network was opened about the size of its file."""
    if (trim := _function("malloc_trim")) is not None:
        trim(0)


def _function(name: str) -> Callable[..., Any] | None:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
