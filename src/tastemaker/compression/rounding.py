"""Weights to integers so that the *products* stay close, not each weight by itself.

Rows are rounded one after the other, and what a row loses is made up for by those still to come, as far as real inputs make them alike (GPTQ: E. Frantar et al., 2022,
arXiv 2210.17323). The integers cost the same to store and to run as those of plain rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.protocols import FloatArray

DAMPING = 0.01
"""Share of the mean of the diagonal that is added to it, so that inputs which calibration never saw still count."""
_BLOCK = 64


def compensated(table_KN: FloatArray, scale_N: FloatArray, moments_KK: FloatArray, most: int = 127) -> NDArray[np.int8]:
    """Codes [K, N] whose product with the inputs seen is close to that of the table.

    Args:
        table_KN: weights, K inputs to N outputs.
        scale_N: what one step of a code is worth in each output.
        moments_KK: sum of the outer products of the inputs seen, [K, K].
        most: largest code.
    """
    order = np.argsort(
        -np.diag(moments_KK), kind="stable"
    )  # what is met most is rounded first, while most is left to make up for it
    left_KN = table_KN[order].astype(np.float32)
    spread_KK = _spread(moments_KK[np.ix_(order, order)])
    codes_KN = np.empty(left_KN.shape, dtype=np.int8)
    for begin in range(0, len(left_KN), _BLOCK):
        block = slice(begin, min(begin + _BLOCK, len(left_KN)))
        errors = np.empty((block.stop - begin, left_KN.shape[1]), dtype=np.float32)
        for place in range(begin, block.stop):
            codes = np.clip(np.rint(left_KN[place] / scale_N), -most, most)
            codes_KN[place] = codes
            errors[place - begin] = (left_KN[place] - codes * scale_N) / spread_KK[place, place]
            left_KN[place + 1 : block.stop] -= np.outer(spread_KK[place, place + 1 : block.stop], errors[place - begin])
        left_KN[block.stop :] -= spread_KK[block, block.stop :].T @ errors
    found = np.empty_like(codes_KN)
    found[order] = codes_KN
    return found


def _spread(moments_KK: FloatArray) -> FloatArray:
    """The upper triangle U of the inverse's Cholesky factor, U.T @ U = inverse: how an error spreads to the rows behind."""
    damped = moments_KK.astype(np.float64)
    diagonal = np.diag(damped)
    damped[np.diag_indices_from(damped)] += max(DAMPING * float(diagonal.mean()), 1e-8)
    inverse = np.linalg.inv(damped)
    upper: FloatArray = np.linalg.cholesky((inverse + inverse.T) / 2).T.astype(np.float32)
    return upper
