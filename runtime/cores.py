"""How many cores this process may keep busy."""

from __future__ import annotations

import os
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def core_count(topology: Path = _TOPOLOGY, quota: Path = _QUOTA) -> int:
    """Physical cores that the process is bound to, and no more than its container's share of time (``--cpus``).

    Both threads of a core count once: they share the units that multiply.

    Args:
        topology: folder with ``cpuN/topology/thread_siblings_list``, as Linux has it.
        quota: the ``cpu.max`` file of the process's control group.
    """
    return max(1, min(_physical(topology), _share(quota)))


def _physical(topology: Path) -> int:
    bound = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = set()
    for number in bound:
        try:
            siblings.add((topology / f"cpu{number}/topology/thread_siblings_list").read_text())
        except OSError:
            return len(bound)
    return len(siblings)


def _share(quota: Path) -> int:
    unlimited = os.cpu_count() or 1
    try:
        limit, _, period = quota.read_text().partition(" ")
        return unlimited if limit == "max" else round(int(limit) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return unlimited
