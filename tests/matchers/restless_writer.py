"""A process that forks writers of both stores for ``test_journal``, which kills them at any moment.

Each line on standard input starts a writer with that number as its seed; it prints its process id, then the number of
each change once both stores have it. Forking saves the time that a fresh interpreter takes.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from tiny import DIMENSION, make_card, unit_rows

from matchers.base import GalleryFace
from matchers.gallery import PklStore
from matchers.journal import writing
from matchers.pgvector import PgvectorStore
from matchers.service import Stores

DOMAIN = "office"
PICTURES = 3
PEOPLE = 4


def change(seed: int, number: int) -> tuple[str, int]:
    """What the writer of ``seed`` does as its change ``number``: a person, and a version or 0 for deleting it."""
    choice = random.Random(f"{seed}-{number}")
    return f"p{choice.randrange(PEOPLE)}", choice.choice((0, seed * 10_000 + number))


def portraits(person: str, version: int) -> list[GalleryFace]:
    """The pictures of a version of a person."""
    rows = unit_rows(PICTURES, DIMENSION, version)
    return [
        GalleryFace(person, f"{person}/{number}.jpg", str(version), row, (1, 2, 30, 40))
        for number, row in enumerate(rows)
    ]


def write(data_dir: Path, conninfo: str, seed: int) -> None:
    """Change after change, without an end."""
    card = make_card("tiny", DIMENSION)
    with PgvectorStore(conninfo, card, 10.0) as pgvector:
        stores = Stores(PklStore(data_dir / "galleries", card, "none"), pgvector)
        print(os.getpid(), flush=True)
        for number in range(10_000):
            person, version = change(seed, number)
            sources = [face.source for face in portraits(person, 1)]
            faces = portraits(person, version) if version else []
            with writing(stores, DOMAIN) as writer:
                writer.write(faces, sources, {face.id: face.digest.encode() for face in faces}, erase=number % 5 == 4)
            print(number, flush=True)


if __name__ == "__main__":
    for line in sys.stdin:
        if os.fork() == 0:
            write(Path(sys.argv[1]), sys.argv[2], int(line))
        os.wait()
        print("gone", flush=True)
