"""One peer that searches, in a process of its own: reads the number of a query a line, answers a line, both JSON.

Runs in the environment of the peer and imports nothing of this project:

python benchmarks/search_worker.py faiss ROWS.npy QUERIES.npy       # IndexScalarQuantizer in half precision
python benchmarks/search_worker.py deepface FOLDER QUERIES.npy      # DeepFace.find on the gallery in FOLDER
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

TOP_K = 10


def faiss_peer(rows: str, queries: str) -> tuple[str, Callable[[int], list[Any]]]:
    """Numbers of the nearest rows."""
    import faiss  # noqa: PLC0415

    matrix, asked = np.load(rows, mmap_mode="r"), np.load(queries)
    index = faiss.IndexScalarQuantizer(matrix.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.train(np.ascontiguousarray(matrix[:1000]))
    for start in range(0, len(matrix), 50_000):
        index.add(np.ascontiguousarray(matrix[start : start + 50_000]))
    return f"faiss-cpu {faiss.__version__}", lambda number: index.search(asked[number : number + 1], TOP_K)[1][
        0
    ].tolist()


def deepface_peer(folder: str, queries: str) -> tuple[str, Callable[[int], list[Any]]]:
    """Identities of the nearest faces; the embedding of the picture asked for is given, not computed."""
    from deepface import DeepFace  # noqa: PLC0415
    from deepface.modules import recognition  # noqa: PLC0415

    asked, now = np.load(queries), [0]
    recognition.representation.represent = lambda **_: [{"embedding": asked[now[0]].tolist()}]
    picture = np.zeros((112, 112, 3), np.uint8)

    def find(number: int) -> list[Any]:
        now[0] = number
        (found,) = DeepFace.find(
            picture, folder, "ArcFace", detector_backend="skip", refresh_database=False, silent=True, threshold=2.0
        )
        return found["identity"].head(TOP_K).tolist()

    return f"deepface {DeepFace.__version__}", find


def main() -> None:
    """Serve until the input ends."""
    kind, *arguments = sys.argv[1:]
    answers = sys.stdout
    # What a library prints must not stand among the answers.
    sys.stdout = sys.stderr
    about, search = {"faiss": faiss_peer, "deepface": deepface_peer}[kind](*arguments)
    print(json.dumps({"about": about}), file=answers, flush=True)
    for line in sys.stdin:
        number = json.loads(line)["query"]
        start = time.perf_counter()
        found = search(number)
        milliseconds = (time.perf_counter() - start) * 1000
        print(json.dumps({"ms": milliseconds, "found": found}), file=answers, flush=True)


if __name__ == "__main__":
    main()
