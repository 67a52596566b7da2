"""The nearest rows of a matrix, exactly, at the price of reading a quarter of it.

Every row x has a code of 8-bit integers c and a scale s, x = s c + a remainder of length e. A query q is coded in the
same way, q = t d + a remainder of length f. Then, by Cauchy and Schwarz,

    |q.x - s t (c.d)|  <=  |q| e + f |s c|

and c.d is a sum of integers, without any rounding. So a scan of the codes gives an upper and a lower bound of every
likeness; only rows whose upper bound reaches the k-th lower bound can be among the k nearest, and those few are
compared in double precision. No row is lost, whatever the data; data that codes describe badly cost time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simsimd

from matchers.base import FloatArray

IndexArray = npt.NDArray[np.int64]
DoubleArray = npt.NDArray[np.float64]

_LEVELS = 127
# More than float32 loses in a handful of operations on numbers of this size.
_ROUNDING = 1e-6
# A part of the codes that stays in the processor's second cache while several queries pass over it.
_CACHE_BYTES = 2**20
# Queries whose likenesses to all rows are kept at once.
_QUERIES = 8
_GROUPS = 64
_BLOCK = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """Rows of a matrix in 8 bits a number.

    Attributes:
        values: (n, d) int8.
        scales: (n,) float32, what a row of ``values`` is to be multiplied by.
        errors: (n,) float32, at least the length of what a row has beyond that.
        longest: at least the length of every row so described.
    """

    values: npt.NDArray[np.int8]
    scales: FloatArray
    errors: FloatArray
    longest: float


def encode(rows: FloatArray) -> Codes:
    """Codes of ``rows`` ((n, d) float32, finite)."""
    count, dimension = rows.shape
    values = np.empty((count, dimension), np.int8)
    scales, errors = np.empty(count, np.float32), np.empty(count, np.float32)
    longest = 0.0
    for start in range(0, count, _BLOCK):
        part = slice(start, start + _BLOCK)
        block = rows[part]
        scale = np.abs(block).max(axis=1, initial=0) / np.float32(_LEVELS)
        scale[scale == 0] = 1
        coded = np.rint(block / scale[:, None]).clip(-_LEVELS, _LEVELS)
        told = coded.astype(np.float64) * scale[:, None]
        values[part], scales[part] = coded, scale
        errors[part] = np.linalg.norm(block - told, axis=1) * (1 + _ROUNDING) + np.finfo(np.float32).tiny
        longest = max(longest, float(np.linalg.norm(told, axis=1).max(initial=0)) * (1 + _ROUNDING))
    return Codes(values, scales, errors, longest)


def nearest(queries: FloatArray, rows: FloatArray, codes: Codes, count: int) -> list[tuple[IndexArray, DoubleArray]]:
    """Numbers of the ``count`` nearest rows of each query and their cosine distances, nearest first.

    Rows at equal distance come in the order of their numbers.

    Args:
        queries: (q, d) float32, unit rows.
        rows: (n, d) float32; only rows that may belong to an answer are read.
        codes: what :func:`encode` gave for ``rows``.
    """
    count = min(count, len(rows))
    if count < 1:
        return [(np.empty(0, np.int64), np.empty(0)) for _ in queries]
    found = []
    for start in range(0, len(queries), _QUERIES):
        some = np.ascontiguousarray(queries[start : start + _QUERIES], np.float32)
        coded = encode(some)
        products = _products(coded.values, codes.values)
        for row, query in enumerate(some):
            likeness = products[row]
            likeness *= codes.scales
            likeness *= coded.scales[row]
            slack = 2 * float(coded.errors[row]) * codes.longest + _ROUNDING * (1 + codes.longest)
            spread = codes.errors * _length(query)
            certain = _reached_by(likeness - spread, count) - slack
            likeness += spread
            near = np.flatnonzero(likeness >= certain)
            most = likeness[near].astype(np.float64) + slack
            found.append(_refined(query, rows, near, most, count))
    return found


def _products(queries: npt.NDArray[np.int8], values: npt.NDArray[np.int8]) -> FloatArray:
    """(q, n) float32: scalar products of all queries with all rows."""
    step = max(1, _CACHE_BYTES // values.shape[1]) if len(queries) > 1 else len(values)
    products = np.empty((len(queries), len(values)), np.float32)
    for start in range(0, len(values), step):
        part = simsimd.cdist(queries, values[start : start + step], "inner", out_dtype="float32")
        products[:, start : start + step] = np.asarray(part)
    return products


def _refined(
    query: FloatArray, rows: FloatArray, near: IndexArray, most: DoubleArray, count: int
) -> tuple[IndexArray, DoubleArray]:
    """Compare the rows ``near`` in full, the likeliest first, until none that is left can be nearer.

    ``most``: how like each of them can be.
    """
    falling = np.argsort(-most, kind="stable")
    best, distances = np.empty(0, np.int64), np.empty(0)
    for start in range(0, len(near), _BLOCK):
        block = near[falling[start : start + _BLOCK]]
        if len(best) == count and 1 - most[falling[start]] > distances[-1]:
            break
        best = np.concatenate([best, block])
        # A matrix product may round equal rows differently; these sums do not, so faces at equal distance tie.
        exact = 1 - (rows[block].astype(np.float64) * query).sum(axis=1)
        distances = np.concatenate([distances, exact])
        order = np.lexsort((best, distances))[:count]
        best, distances = best[order], distances[order]
    return best, distances.clip(0, 2)


def _reached_by(values: FloatArray, count: int) -> float:
    """A number that at least ``count`` of ``values`` reach; close to the largest such number."""
    groups = len(values) // _GROUPS
    if groups < _GROUPS * count:
        return float(np.partition(values, -count)[-count])
    # So many groups have a value that reaches it.
    maxima = values[: groups * _GROUPS].reshape(_GROUPS, groups).max(axis=0)
    return float(np.partition(maxima, -count)[-count])


def _length(query: FloatArray) -> np.float32:
    return np.float32(np.linalg.norm(query.astype(np.float64)) * (1 + _ROUNDING))
