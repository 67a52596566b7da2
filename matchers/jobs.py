"""Long work whose state lies in files, so that every process can tell how far it is.

``root/<id>.json`` holds the state of a job. While it runs, its process holds the lock of its domain: when that process
dies the kernel lets go of the lock, and whoever reads the file knows that the job is lost.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

from matchers.errors import MatcherError
from matchers.files import written_atomically

State = Literal["running", "done", "failed"]

KEPT_SECONDS: Final = 24 * 3600.0
"""How long the report of a job that has ended can be read."""

_ID: Final = re.compile(r"[0-9a-f]{32}")
# A reader looks four times a second.
_STEP_SECONDS: Final = 0.25

_log = logging.getLogger("matchers.jobs")


class JobRunning(MatcherError):
    """Another job works on the domain."""


@dataclass(frozen=True, slots=True)
class Job:
    """How far a job is.

    Attributes:
        kind: what it does, such as ``sync``.
        done, total: steps; 0 of 0 before that is known.
        report: what it did, once it is done.
        error: ``code`` and ``message``, once it has failed.
        started, ended: seconds since 1970; ended is 0 while it runs.
    """

    id: str
    domain: str
    kind: str
    state: State = "running"
    done: int = 0
    total: int = 0
    report: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, str] = field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0


_FIELDS: Final = frozenset(field.name for field in fields(Job))


def is_job_id(text: str) -> bool:
    """Whether ``text`` can name a job."""
    return _ID.fullmatch(text) is not None


class JobFolder:
    """The jobs of all processes of one ``DATA_DIR``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, job: str) -> Job | None:
        """The state of a job, None when there is none of that id (any more)."""
        state = self._load(job)
        if state is None or state.state != "running" or self._is_locked(state.domain):
            return state
        # It may have ended between the two looks.
        state = self._load(job)
        if state is None or state.state != "running":
            return state
        message = "The process that did the work has ended. Start the job again; what was done stays."
        return replace(state, state="failed", error={"code": "job_lost", "message": message})

    def start(self, domain: str, kind: str) -> RunningJob:
        """A new job, held until its :meth:`RunningJob.close`. Old reports of the domain are deleted.

        Raises:
            JobRunning: another one works on the domain.
            OSError: the folder cannot be written.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._lock(domain), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise JobRunning(f"another job works on the domain {domain!r}; wait for its end") from error
        try:
            self._clean(domain)
            return RunningJob(self, Job(secrets.token_hex(16), domain, kind, started=time.time()), lock)
        except BaseException:
            os.close(lock)
            raise

    def forget(self, domain: str) -> None:
        """Delete the reports of the domain's jobs that have ended, which may name people."""
        for job in self._all():
            if job.domain == domain and job.state != "running":
                self._path(job.id).unlink(missing_ok=True)

    def write(self, job: Job) -> None:
        """Put the state of a job on the disk."""
        with written_atomically(self._path(job.id)) as file:
            file.write(json.dumps(asdict(job), allow_nan=False).encode())

    def _clean(self, domain: str) -> None:
        """The caller holds the lock of ``domain``: a job there that seems to run was killed."""
        now = time.time()
        for job in self._all():
            lost = job.domain == domain and job.state == "running"
            if lost or (job.state != "running" and now - job.ended > KEPT_SECONDS):
                self._path(job.id).unlink(missing_ok=True)
        for entry in self.root.glob(".*.part"):
            # Jobs of other domains write theirs meanwhile.
            with suppress(FileNotFoundError):
                if now - entry.stat().st_mtime > KEPT_SECONDS:
                    entry.unlink()

    def _all(self) -> Iterator[Job]:
        """What can be read; a file that nobody can read is deleted, since it may name people."""
        for path in self.root.glob("*.json"):
            if not is_job_id(path.stem):
                continue
            job = self._load(path.stem)
            if job is not None:
                yield job
            else:
                path.unlink(missing_ok=True)

    def _load(self, job: str) -> Job | None:
        if not is_job_id(job):
            return None
        try:
            told = json.loads(self._path(job).read_bytes())
            # Another version of this program, which runs beside this one or did before, may tell more.
            return Job(**{name: told[name] for name in _FIELDS & told.keys()})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError):
            _log.warning("%s tells of no job and is passed over", self._path(job))
            return None

    def _is_locked(self, domain: str) -> bool:
        try:
            lock = os.open(self._lock(domain), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def _path(self, job: str) -> Path:
        return self.root / f"{job}.json"

    def _lock(self, domain: str) -> Path:
        return self.root / f".{domain}.lock"


class RunningJob:
    """A job that this process does, from one thread."""

    def __init__(self, folder: JobFolder, job: Job, lock: int) -> None:
        self.job = job
        self._folder = folder
        self._lock = lock
        self._told = 0.0
        folder.write(job)

    def progress(self, done: int, total: int) -> None:
        """Tell how far it is; written four times a second at most."""
        self.job = replace(self.job, done=done, total=total)
        now = time.monotonic()
        if now - self._told >= _STEP_SECONDS:
            self._told = now
            self._folder.write(self.job)

    def finish(self, report: Mapping[str, Any]) -> None:
        """It is done."""
        self._end(replace(self.job, state="done", report=report))

    def fail(self, code: str, message: str) -> None:
        """It could not be done."""
        self._end(replace(self.job, state="failed", error={"code": code, "message": message}))

    def close(self) -> None:
        """Let go of the domain."""
        os.close(self._lock)

    def _end(self, job: Job) -> None:
        self.job = replace(job, ended=time.time())
        self._folder.write(self.job)
