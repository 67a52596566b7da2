"""Galleries that tests fill, and a database of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tiny import DIMENSION, make_card, make_faces, unit_rows

from matchers.base import FloatArray, GalleryFace
from models.card import ModelCard


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """Connection string of an empty database of its own."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(name)))
    yield make_conninfo(postgres, dbname=name)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def embedder_card() -> ModelCard:
    return make_card("tiny", DIMENSION)


@pytest.fixture
def faces() -> Callable[..., list[GalleryFace]]:
    return make_faces


@pytest.fixture
def unit() -> Callable[..., FloatArray]:
    return unit_rows


@pytest.fixture
def card() -> Callable[[str, int], ModelCard]:
    return make_card


@pytest.fixture
def project() -> Path:
    return Path(__file__).parents[2]
