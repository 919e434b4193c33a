"""Products of a few queries with the rows of a small table that never changes, such as the head of an index: a request asks for them again and again."""

from __future__ import annotations

import numpy as np

from tastemaker.schema.protocols import FloatArray

AT_ONCE = 4
"""Queries that are multiplied in one piece: so few, and so many, are read by BLAS as they lie; more it first copies the whole table for (8 queries with 1,024 rows
of 144 numbers: 25 microseconds for 90)."""


class Products:
    """A table, turned once.

    Args:
        rows: float32 [N, D].
    """

    def __init__(self, rows: FloatArray) -> None:
        self._columns = np.ascontiguousarray(rows.T, dtype=np.float32)

    def of(self, queries: FloatArray) -> FloatArray:
        """Inner products, float32 [Q, N], of queries [Q, D]."""
        count = len(queries)
        if count <= 1:
            alone: FloatArray = queries @ self._columns
            return alone
        filled = np.zeros((-(-count // AT_ONCE) * AT_ONCE, queries.shape[1]), dtype=np.float32)
        filled[:count] = queries
        found = np.empty((len(filled), self._columns.shape[1]), dtype=np.float32)
        for begin in range(0, len(filled), AT_ONCE):
            np.matmul(filled[begin : begin + AT_ONCE], self._columns, out=found[begin : begin + AT_ONCE])
        return found[:count]
