"""The state of long work, as any process sees it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from matchers.jobs import JobFolder, JobRunning

HOLDER = """
import sys, time
from pathlib import Path
from matchers.jobs import JobFolder
running = JobFolder(Path(sys.argv[1])).start("office", "sync")
running.progress(3, 9)
print(running.job.id, flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(tmp_path / "jobs")


def test_another_process_follows_a_job_and_sees_when_it_is_lost(folder: JobFolder) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder.root)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    name = holder.stdout.readline().strip()
    job = folder.read(name)
    assert job is not None
    assert (job.domain, job.kind, job.state, job.done, job.total) == ("office", "sync", "running", 3, 9)
    with pytest.raises(JobRunning):
        folder.start("office", "import")
    folder.start("other", "sync").close()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lost = folder.read(name)
    assert lost is not None
    assert (lost.state, lost.error["code"]) == ("failed", "job_lost")
    running = folder.start("office", "sync")
    assert folder.read(name) is None, "the next job cleans up behind a killed one"
    running.close()


def test_a_report_is_kept_until_somebody_forgets_it(folder: JobFolder) -> None:
    running = folder.start("office", "sync")
    running.finish({"added": 2})
    running.close()
    done = folder.read(running.job.id)
    assert done is not None
    assert (done.state, done.report) == ("done", {"added": 2})
    assert (folder.root / f"{running.job.id}.json").stat().st_mode & 0o777 == 0o600
    folder.forget("other")
    assert folder.read(running.job.id) is not None
    folder.forget("office")
    assert folder.read(running.job.id) is None


def test_old_reports_go_when_the_next_job_starts(folder: JobFolder) -> None:
    running = folder.start("office", "sync")
    running.fail("no", "because")
    running.close()
    path = folder.root / f"{running.job.id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ended": time.time() - 90_000}))
    folder.start("other", "sync").close()
    assert folder.read(running.job.id) is None


@pytest.mark.parametrize("name", ["", "../secret", "x" * 32, "0" * 31])
def test_a_name_that_is_none_finds_nothing(folder: JobFolder, name: str) -> None:
    assert folder.read(name) is None


def test_jobs_of_other_domains_that_tell_how_far_they_are_disturb_no_start(folder: JobFolder) -> None:
    busy, done = folder.start("office", "sync"), threading.Event()

    def tell() -> None:
        while not done.is_set():
            folder.write(busy.job)

    with ThreadPoolExecutor(4) as pool:
        tellers = [pool.submit(tell) for _ in range(4)]
        try:
            for _ in range(100):
                folder.start("other", "sync").close()
        finally:
            done.set()
        for teller in tellers:
            teller.result()
    busy.close()


def test_a_job_of_another_version_is_read_and_one_that_nobody_can_read_is_deleted(folder: JobFolder) -> None:
    running = folder.start("office", "sync")
    running.finish({})
    running.close()
    path = folder.root / f"{running.job.id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mood": "good"}))
    damaged = [folder.root / f"{number:032}.json" for number in range(3)]
    for file, content in zip(damaged, (b"", b"[1]", b'{"id": "amy"}'), strict=True):
        file.write_bytes(content)
        assert folder.read(file.stem) is None
    job = folder.read(running.job.id)
    assert job is not None
    assert job.state == "done"
    folder.forget("office")
    assert not list(folder.root.glob("*.json"))
    folder.start("office", "sync").close()
