"""A running service indexes what has outgrown an exact search."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from matchers.base import GalleryFace
from matchers.pgvector import PgvectorStore
from matchers.service import open_stores
from models.settings import Settings
from runtime.engine import FaceEngine
from server.app import create_app


def test_a_large_domain_gets_its_index_while_the_service_runs(
    serve: Callable[[Starlette], AbstractContextManager[httpx.Client]],
    *,
    pkl_settings: Settings,
    engine: FaceEngine,
    postgres: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("matchers.service.PgvectorStore", partial(PgvectorStore, exact_limit=2))
    monkeypatch.setattr("server.indexing._SECONDS", 0.1)
    settings = pkl_settings.model_copy(
        update={"data_dir": tmp_path, "vector_db_enabled": True, "database_url": postgres}
    )
    rows = np.eye(3, engine.embedder_card.dimension, dtype=np.float32)
    faces = [GalleryFace("amy", f"amy/{number}.jpg", "", row, (0, 0, 1, 1)) for number, row in enumerate(rows)]
    with open_stores(settings, engine.embedder_card, engine.detector_card.name) as stores:
        assert stores.pgvector is not None
        with serve(create_app(settings, engine, stores)):
            stores.pgvector.apply("grown", faces, ())
            deadline = time.monotonic() + 60
            while not stores.pgvector.indexed("grown"):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        stores.pgvector.drop("grown")
