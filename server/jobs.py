"""Long work in threads of its own; how far it is, any worker can tell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from matchers.folder import FolderError
from matchers.jobs import Job, JobFolder, JobRunning, RunningJob
from server.errors import ApiError, api_error

Progress = Callable[[int, int], None]
Work = Callable[[Progress], Mapping[str, Any]]

_THREADS = 2


class _Stopped(Exception):
    pass


class Jobs:
    """Does long work in threads of its own. Thread-safe."""

    def __init__(self, folder: JobFolder) -> None:
        """``folder``: the jobs' states, shared by all workers."""
        self.folder = folder
        self._executor = ThreadPoolExecutor(_THREADS, "job")
        self._stopping = threading.Event()

    def start(self, domain: str, kind: str, work: Work) -> Job:
        """Do ``work`` in the background; it is given a function to call with the steps done and to do.

        Raises:
            ApiError: 409, another job works on the domain; 503, the state cannot be written.
        """
        try:
            running = self.folder.start(domain, kind)
        except JobRunning as error:
            raise ApiError(409, "job_running", f"{str(error).capitalize()}.") from error
        except OSError as error:
            raise ApiError(503, "job_not_started", f"DATA_DIR cannot be written: {error.strerror}.") from error
        job = running.job
        self._executor.submit(self._run, running, work)
        return job

    def close(self) -> None:
        """Stop what runs at its next step, and wait for that."""
        self._stopping.set()
        self._executor.shutdown()

    def _run(self, running: RunningJob, work: Work) -> None:
        def progress(done: int, total: int) -> None:
            if self._stopping.is_set():
                raise _Stopped
            running.progress(done, total)

        try:
            progress(0, 0)
            running.finish(work(progress))
        except _Stopped:
            running.fail("job_stopped", "The server was stopped. Start the job again; what was done stays.")
        except FolderError as error:
            running.fail("folder_unusable", str(error))
        except Exception as error:
            told = api_error(error)
            running.fail(told.code, told.message)
        finally:
            running.close()
