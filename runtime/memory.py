"""What the process keeps of the memory that it has used: enough to be fast, no more."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import onnxruntime as ort

# Names of glibc's malloc.h. Blocks of 4 MiB and more, pictures of more than 1.4 megapixels, are given back as soon as
# they are free, and what is free at the end of the heap beyond 8 MiB. By itself glibc raises both limits to the largest
# block that was ever freed, up to 32 and 64 MiB, and keeps all that lies below.
_MMAP_THRESHOLD, _LARGE = -3, 4 * 2**20
_TRIM_THRESHOLD, _KEPT = -1, 8 * 2**20
_SAME_AS_REQUESTED = 1
_REGISTERING = threading.Lock()


def share_arena() -> None:
    """Let the CPU sessions with ``session.use_env_allocators`` use one arena together.

    Each would keep what its largest run has needed, and one that runs with all cores and one that runs in a crowd never
    need it at once. The arena grows by what is asked for; ONNX Runtime's own doubles.
    """
    with _REGISTERING:
        _registered_arena()


@cache
def _registered_arena() -> None:
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(place, ort.OrtArenaCfg(0, _SAME_AS_REQUESTED, -1, -1))


@cache
def return_large_blocks() -> None:
    """Have the allocator give large blocks back to the system at once, where it is glibc's."""
    if (setting := _libc("mallopt")) is not None:
        setting(_MMAP_THRESHOLD, _LARGE)
        setting(_TRIM_THRESHOLD, _KEPT)


def return_free_blocks() -> None:
    """Give what the allocator keeps free back to the system: after a network was opened about the size of its file."""
    if (trim := _libc("malloc_trim")) is not None:
        trim(0)


def _libc(name: str) -> Callable[..., Any] | None:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
