from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.cores import core_count

BOUND = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def topology(folder: Path, siblings: dict[int, str]) -> Path:
    for number, text in siblings.items():
        path = folder / f"cpu{number}/topology/thread_siblings_list"
        path.parent.mkdir(parents=True)
        path.write_text(text + "\n")
    return folder


@pytest.mark.skipif(not BOUND, reason="no affinity on this system")
def test_both_threads_of_a_core_count_once(tmp_path: Path) -> None:
    separate = topology(tmp_path / "a", {number: str(number) for number in BOUND})
    shared = topology(tmp_path / "b", dict.fromkeys(BOUND, "0-63"))
    assert core_count(separate, tmp_path / "none") == len(BOUND)
    assert core_count(shared, tmp_path / "none") == 1


@pytest.mark.parametrize(("text", "least"), [("100000 100000\n", 1), ("10000 100000\n", 1), ("max 100000\n", 0)])
def test_a_container_counts_its_share_of_time(tmp_path: Path, text: str, least: int) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    unlimited = core_count(tmp_path, tmp_path / "none")
    assert core_count(tmp_path, quota) == (least or unlimited)


def test_what_cannot_be_read_limits_nothing(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("so much")
    assert core_count(tmp_path, tmp_path / "cpu.max") == core_count(tmp_path, tmp_path / "none") >= 1
