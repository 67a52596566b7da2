from __future__ import annotations

import subprocess
import sys

import pytest

COUNT_ARENAS = """
import ctypes, threading
from runtime.memory import share_one_arena
if {shared}:
    share_one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
started = threading.Barrier(4)
def allocate():
    started.wait()
    libc.malloc(ctypes.c_size_t(1000))
threads = [threading.Thread(target=allocate) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
stream = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, ctypes.c_void_p(stream))
libc.fclose(ctypes.c_void_p(stream))
"""


def arenas(shared: bool, **variables: str) -> int:
    """How many arenas glibc has after four threads allocated at once."""
    command = [sys.executable, "-c", COUNT_ARENAS.format(shared=shared)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.count("<heap nr=")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_threads_share_one_arena_unless_the_environment_says_otherwise() -> None:
    assert arenas(shared=False) > 1
    assert arenas(shared=True) == 1
    assert arenas(shared=True, MALLOC_ARENA_MAX="3") == 3
