"""What the process keeps of the memory that it has used: enough to be fast, no more."""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache

import onnxruntime as ort

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


def return_free_blocks() -> None:
    """Give what the allocator keeps free back to the system: after a network was opened about the size of its file."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
