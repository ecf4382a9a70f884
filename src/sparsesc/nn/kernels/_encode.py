"""From cells to CSR rows, block by block: no dense code larger than one block, which stays in the cache."""

from __future__ import annotations

import numba as nb
import numpy as np

from ._chunks import BLOCK, block_capacity
from ._forward import multiply_rows
from ._select import top_k_of_row
from ._simd import LANES, keep_at_least_each
from ._threads import on_threads


def _encode_rows(
    X: np.ndarray, packed: np.ndarray, pre: np.ndarray, b_dec: np.ndarray, bias: np.ndarray, limits: np.ndarray, k: int,
    index: np.ndarray, value: np.ndarray, count: np.ndarray, n_parts: int,
) -> None:  # fmt: skip
    """Active entries of each row of ``X`` (m, d): those at or above their feature's limit, or the ``k`` largest.

    ``packed`` is the encoder in tiles; when it is empty, ``pre`` (m, F padded) holds the product. Every block of rows
    has a segment of ``BLOCK * F padded + 16`` entries in ``index`` and ``value``, filled from its beginning.
    """
    m, d = X.shape
    n, n_blocks, row_size = len(bias), -(-m // BLOCK), packed.shape[1]
    compiled = len(packed) > 0
    for part in nb.prange(n_parts):
        cells = np.zeros((BLOCK, max(row_size, 1)), X.dtype)
        product = np.empty((BLOCK if compiled else 1, n), X.dtype)
        maxima = np.empty(n + 2 * LANES, X.dtype)
        for block in range(part * n_blocks // n_parts, (part + 1) * n_blocks // n_parts):
            first, last = block * BLOCK, min(m, (block + 1) * BLOCK)
            if compiled:
                for i in range(first, last):
                    for c in range(d):
                        cells[i - first, c] = X[i, c] - b_dec[c]
                multiply_rows(0, last - first, cells, packed, product, d)
            rows, shift = (product.reshape(-1), first) if compiled else (pre.reshape(-1), 0)
            at = block * block_capacity(n)
            for i in range(first, last):
                if k > 0:
                    end = top_k_of_row(rows, (i - shift) * n, bias, n, k, maxima, index, value, at)
                else:
                    end = keep_at_least_each(rows, (i - shift) * n, bias, n, limits, index, value, at)
                count[i] = end - at
                at = end


def _collect_rows(
    index: np.ndarray, value: np.ndarray, start: np.ndarray, n: int, indices: np.ndarray, data: np.ndarray
) -> None:
    """Join the segments of all blocks without gaps; row i begins at ``start[i]``."""
    m = len(start) - 1
    for block in nb.prange(-(-m // BLOCK)):
        first, last = start[block * BLOCK], start[min(m, (block + 1) * BLOCK)]
        at = block * block_capacity(n)
        indices[first:last] = index[at : at + last - first]
        data[first:last] = value[at : at + last - first]


encode_rows = on_threads(_encode_rows)
collect_rows = on_threads(_collect_rows)
