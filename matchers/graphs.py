"""What an HNSW graph holds of embeddings: their numbers in half precision, or one bit of each.

The bits are the signs. Two rows at an angle a differ in a share a/π of them on average, give or take 1/(2√d): with many
numbers that tells one person's pictures from everybody else's as surely as the numbers do, and a node is read in a
sixteenth of the memory. What is found is compared in full anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

# Of 512 bits, pictures of one person differ in 100 to 180, others in 256 give or take 11; of 128 bits that would be 25
# to 45, and 64 give or take 6.
_BITS_FROM = 512
# Links of a node and candidates while it is put in: the graph of 100,000 faces with five pictures of each person finds
# who is nearest for all of 500 queries, pgvector's own 16 and 64 for 99 % (python -m benchmarks.pgvector_search).
_LINKS, _CONSTRUCTION = 24, 100
# What pgvector keeps of a node while it builds, beside its numbers: links with their distances, and a header.
_NODE_BYTES = 1700


@dataclass(frozen=True, slots=True)
class Graph:
    """One way to put embeddings into a graph.

    Attributes:
        suffix: how the index's name ends.
        of: what is put in, of the vector ``{v}`` of ``{d}`` numbers.
        operator: gives the distance of two such.
        operators: pgvector's name for the index's operators.
        bits: of one number.
    """

    suffix: str
    of: str
    operator: str
    operators: str
    bits: int

    def definition(self, name: str, table: sql.Composable, dimension: int) -> sql.Composed:
        """The statement that makes the index."""
        return sql.SQL(
            "CREATE INDEX CONCURRENTLY {} ON {} USING hnsw (({}) {}) WITH (m = {}, ef_construction = {})"
        ).format(
            sql.Identifier(name),
            table,
            self._of("embedding", dimension),
            sql.SQL(self.operators),
            sql.Literal(_LINKS),
            sql.Literal(_CONSTRUCTION),
        )

    def distance(self, vector: str, dimension: int) -> sql.Composed:
        """Expression by which a search goes through the index, nearest to ``vector`` first."""
        return sql.SQL("{} {} {}").format(
            self._of("embedding", dimension), sql.SQL(self.operator), self._of(vector, dimension)
        )

    def memory(self, faces: int, dimension: int) -> int:
        """Bytes in which the graph is built."""
        return int(1.1 * faces * (self.bits * dimension // 8 + _NODE_BYTES))

    def _of(self, vector: str, dimension: int) -> sql.Composed:
        return sql.SQL(self.of).format(v=sql.SQL(vector), d=sql.Literal(dimension))


HALVES = Graph("hnsw", "{v}::halfvec({d})", "<#>", "halfvec_ip_ops", 16)
BITS = Graph("bits", "binary_quantize({v})::bit({d})", "<~>", "bit_hamming_ops", 1)


def best_graph(dimension: int) -> Graph:
    """The graph for embeddings of so many numbers."""
    return BITS if dimension >= _BITS_FROM else HALVES
