"""From pre-activations to CSR rows: count, then write, never a dense code."""

from __future__ import annotations

import numba as nb
import numpy as np

from ._select import PARALLEL, n_groups, top_k_row

_CHUNK = 64
_BLOCKS = 64


@nb.njit(**PARALLEL)
def count_above(pre: np.ndarray, bias: np.ndarray, threshold: np.ndarray, count: np.ndarray) -> None:
    """How many entries of each row are positive and above their feature's threshold."""
    n_rows, n_features = pre.shape
    for block in nb.prange(_BLOCKS):
        for i in range(block * n_rows // _BLOCKS, (block + 1) * n_rows // _BLOCKS):
            row, n = pre[i], 0
            for j in range(n_features):
                n += row[j] + bias[j] > threshold[j]
            count[i] = n


@nb.njit(**PARALLEL)
def write_above(
    pre: np.ndarray,
    bias: np.ndarray,
    threshold: np.ndarray,
    start: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
) -> None:
    """Write what :func:`count_above` counted, row i from ``start[i]`` on, in ascending feature order."""
    n_rows, n_features = pre.shape
    for block in nb.prange(_BLOCKS):
        for i in range(block * n_rows // _BLOCKS, (block + 1) * n_rows // _BLOCKS):
            row, at = pre[i], start[i]
            for first in range(0, n_features, _CHUNK):
                last = min(first + _CHUNK, n_features)
                hits = 0
                for j in range(first, last):  # a whole chunk in vector registers; most have nothing
                    hits += row[j] + bias[j] > threshold[j]
                if hits > 0:
                    for j in range(first, last):
                        v = row[j] + bias[j]
                        if v > threshold[j]:
                            indices[at] = j
                            data[at] = v
                            at += 1


@nb.njit(**PARALLEL)
def write_top_k(
    pre: np.ndarray, bias: np.ndarray, k: int, count: np.ndarray, indices: np.ndarray, data: np.ndarray
) -> None:
    """The k largest positive entries of each row, row i from ``i * k`` on; rows with fewer leave a gap."""
    n_rows, n_features = pre.shape
    groups = n_groups(n_features, k)
    for block in nb.prange(_BLOCKS):
        maxima, work = np.empty(groups, pre.dtype), np.empty(n_features, pre.dtype)
        index, value = np.empty(n_features, np.int32), np.empty(n_features, pre.dtype)
        for i in range(block * n_rows // _BLOCKS, (block + 1) * n_rows // _BLOCKS):
            n = top_k_row(pre[i], bias, k, index, value, maxima, work)
            count[i] = n
            for c in range(n):
                indices[i * k + c] = index[c]
                data[i * k + c] = value[c]
