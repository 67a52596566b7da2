"""What the service did by itself is noted once, and only where it follows from what stands in the log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from matchers.audit import AUTOMATIC, AuditLog, ModeChange, now
from matchers.dual import PGVECTOR_FAILED

DOMAIN = "slovenia"


@pytest.fixture
def audit(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "audit")


def steps(audit: AuditLog) -> list[tuple[str, str, str]]:
    return [(change.who, change.before, change.after) for change in audit.read(DOMAIN)]


def test_two_workers_note_a_way_back_and_up_again_once(audit: AuditLog) -> None:
    noted = [audit.append_automatic(DOMAIN, "pgvector_only", PGVECTOR_FAILED) for _ in range(2)]
    noted += [audit.append_automatic(DOMAIN, PGVECTOR_FAILED, "pgvector_only") for _ in range(2)]
    assert noted == [True, False, True, False]
    assert steps(audit) == [
        (AUTOMATIC, PGVECTOR_FAILED, "pgvector_only"),
        (AUTOMATIC, "pgvector_only", PGVECTOR_FAILED),
    ]


def test_a_worker_that_is_late_notes_nothing_after_somebody_set_another_mode(audit: AuditLog) -> None:
    audit.append_automatic(DOMAIN, "pgvector_only", PGVECTOR_FAILED)
    audit.append(DOMAIN, ModeChange(now(), "ana", "pgvector_only", "pkl_only"))
    assert not audit.append_automatic(DOMAIN, PGVECTOR_FAILED, "pgvector_only")
    assert not audit.append_automatic(DOMAIN, "pgvector_only", PGVECTOR_FAILED)
    assert steps(audit)[0] == ("ana", "pgvector_only", "pkl_only")


def test_a_disk_that_takes_a_part_of_an_entry_leaves_none_and_says_so(audit: AuditLog) -> None:
    audit.append(DOMAIN, ModeChange(now(), "ana", "pkl_only", "dual"))
    before = (audit.root / f"{DOMAIN}.jsonl").read_bytes()
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from matchers.audit import AuditLog, ModeChange\nfrom matchers.errors import StoreUnavailable\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sys.dont_write_bytecode = True\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 20}, {len(before) + 20}))\n"
        "try:\n"
        f"    AuditLog(Path(sys.argv[1])).append({DOMAIN!r}, ModeChange('now', 'ana', 'dual', 'pgvector_only'))\n"
        "except StoreUnavailable as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", program, str(audit.root)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "cannot be written" in told
    assert (audit.root / f"{DOMAIN}.jsonl").read_bytes() == before
