"""The tables of one embedder's faces in PostgreSQL: one table per embedding model, one partition per domain."""

from __future__ import annotations

import hashlib
import re

from psycopg import sql

from matchers.database import Connection, lock_key
from matchers.errors import GalleryError
from models.card import ModelCard

# A row stored plain must fit into a page of 8 kB; wider embeddings go to TOAST, uncompressed.
_PLAIN_BYTES = 7600
# A hash index takes sources of any length; a B-tree refuses those over 2.7 kB.
_SOURCE_INDEX = sql.SQL("CREATE INDEX ON {} USING hash (source)")
# PostgreSQL cuts names at 63 bytes; 17 are for the domain's digest.
_TABLE_NAME = re.compile(r"[a-z0-9_]{1,32}")


class FaceTables:
    """Names and definitions; every method works on the connection that it gets, in the caller's transaction.

    Attributes:
        name: the parent table's, in the schema ``face_service``.
        model: whose embeddings it holds.
    """

    def __init__(self, embedder: ModelCard) -> None:
        self.name = _table_name(embedder.name)
        self.model = embedder.name
        self._embedder = embedder

    @property
    def identifier(self) -> sql.Identifier:
        """The parent of all partitions."""
        return sql.Identifier("face_service", self.name)

    def partition(self, domain: str) -> sql.Identifier:
        """The table that holds the faces of ``domain``, whether it is there or not."""
        return sql.Identifier("face_service", self._partition_name(domain))

    def index_name(self, domain: str, suffix: str) -> str:
        """An index of a large domain; it lies in the schema ``face_service``."""
        return f"{self._partition_name(domain)}_{suffix}"

    def writing_key(self, domain: str) -> int:
        """Advisory lock of those who write ``domain``."""
        return lock_key(self.name, domain)

    def create(self, connection: Connection) -> None:
        """Create the parent table unless it is there.

        Raises:
            GalleryError: it holds embeddings of another model.
        """
        card = self._embedder
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key(self.name, ""),))
            fresh = connection.execute(
                "INSERT INTO face_service.models (table_name, model, space, dimension) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (table_name) DO NOTHING",
                (self.name, card.name, card.gallery_space, card.dimension),
            ).rowcount
            row = connection.execute(
                "SELECT model, space, dimension FROM face_service.models WHERE table_name = %s", (self.name,)
            ).fetchone()
            expected = (card.name, card.gallery_space, card.dimension)
            if row != expected:
                raise GalleryError(
                    f"table {self.name} holds embeddings of another model (name, space, dimension {row}) than "
                    f"the embedder {expected}: adopt the model under another name"
                )
            if fresh:
                self._define_table(connection)

    def register(self, connection: Connection, domain: str) -> bool:
        """Put the domain into the list of domains; whether it stood there before."""
        return not connection.execute(
            "INSERT INTO face_service.domains (table_name, domain, partition_name) VALUES (%s, %s, %s) "
            "ON CONFLICT (table_name, domain) DO NOTHING",
            (self.name, domain, self._partition_name(domain)),
        ).rowcount

    def create_partition(self, connection: Connection, partition: sql.Composable) -> None:
        """First step of a new domain: a table without indexes, which fills faster."""
        connection.execute(
            sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES)").format(partition, self.identifier)
        )
        # Statistics would copy names into the system's own tables, where deleting a person does not reach.
        for column in ("person", "source", "digest", "embedding"):
            connection.execute(
                sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET STATISTICS 0").format(partition, sql.Identifier(column))
            )

    def attach(self, connection: Connection, partition: sql.Composable, domain: str) -> None:
        """Last step of a new domain: it locks the parent table, on which writers of other new domains wait."""
        connection.execute(_SOURCE_INDEX.format(partition))
        connection.execute(
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES IN ({})").format(
                self.identifier, partition, sql.Literal(domain)
            )
        )

    def _define_table(self, connection: Connection) -> None:
        table = self.identifier
        dimension = self._embedder.dimension
        connection.execute(
            sql.SQL(
                "CREATE TABLE {} (domain text NOT NULL, person text NOT NULL, source text NOT NULL, "
                "digest text NOT NULL, x integer NOT NULL, y integer NOT NULL, w integer NOT NULL, "
                "h integer NOT NULL, embedding vector({}) NOT NULL, "
                "created_at timestamptz NOT NULL DEFAULT now()) PARTITION BY LIST (domain)"
            ).format(table, sql.Literal(dimension))
        )
        storage = "PLAIN" if 4 * dimension <= _PLAIN_BYTES else "EXTERNAL"
        connection.execute(
            sql.SQL("ALTER TABLE {} ALTER COLUMN embedding SET STORAGE {}").format(table, sql.SQL(storage))
        )
        connection.execute(_SOURCE_INDEX.format(table))

    def _partition_name(self, domain: str) -> str:
        return f"{self.name}_{hashlib.sha256(domain.encode()).hexdigest()[:16]}"


def _table_name(model: str) -> str:
    name = "faces_" + re.sub(r"[^a-z0-9]+", "_", model.lower())
    if name == f"faces_{model}" and _TABLE_NAME.fullmatch(name):
        return name
    return f"{name[:23]}_{hashlib.sha256(model.encode()).hexdigest()[:8]}"
