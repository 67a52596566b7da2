"""A process that forks importers of galleries for ``test_import``, which kills them at any moment.

Each line on standard input is a gallery file to bring into the domain; the importer prints its process id, then
``done``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tiny import DIMENSION, make_card

from matchers.gallery import PklStore
from matchers.importing import GalleryFile, import_gallery
from matchers.pgvector import PgvectorStore
from matchers.service import Stores


def bring(data_dir: Path, conninfo: str, path: Path) -> None:
    """Import one file."""
    card = make_card("tiny", DIMENSION)
    with PgvectorStore(conninfo, card, 10.0) as pgvector, path.open("rb") as file:
        stores = Stores(PklStore(data_dir / "galleries", card, "none"), pgvector)
        stores.pkl.count("office")
        pgvector.count("office")
        print(os.getpid(), flush=True)
        import_gallery(stores, card, "none", "office", GalleryFile(file, "g.pkl"), stage=lambda _: lambda *_: None)
        print("done", flush=True)


if __name__ == "__main__":
    for line in sys.stdin:
        if os.fork() == 0:
            bring(Path(sys.argv[1]), sys.argv[2], Path(line.strip()))
            os._exit(0)
        os.wait()
        print("gone", flush=True)
