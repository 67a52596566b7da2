"""A worker with a PKL gallery open: ``python -m benchmarks.gallery_worker FOLDER QUERIES.npy``.

Searches with every query, prints what memory it holds by then, and stays until its input ends.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from matchers.gallery import PklStore
from matchers.matrix_file import matrix_path
from tests.matchers.tiny import make_card

DOMAIN = "big"
TOP_K = 10


def main() -> None:
    """Serve until the input ends."""
    folder, queries = Path(sys.argv[1]), np.load(sys.argv[2])
    store = PklStore(folder, make_card("arcface", queries.shape[1]), "skip")
    for query in queries:
        store.search(query[None], DOMAIN, None, TOP_K)
    print(json.dumps({"about": "open"}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(_memory(matrix_path(store.path(DOMAIN)).name)), flush=True)


def _memory(name: str) -> dict[str, float]:
    """MB of the mapping of the file ``name``: present in memory, and this process's share of it."""
    found = {"Rss": 0, "Pss": 0}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        field, _, rest = line.partition(":")
        if "-" in field:
            inside = line.endswith(name)
        elif inside and field in found:
            found[field] += int(rest.split()[0])
    return {field: kilobytes / 1000 for field, kilobytes in found.items()}


if __name__ == "__main__":
    main()
