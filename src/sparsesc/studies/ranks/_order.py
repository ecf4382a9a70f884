"""Order and ranks of the entries of sparse rows: largest first; zeros are not stored and stay so."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled

_SHARED = {"first": 0, "random": 0, "average": 1, "min": 2}
TIES = tuple(_SHARED)


@compiled
def _order_rows(indptr: np.ndarray, values: np.ndarray, lottery: np.ndarray, order: np.ndarray) -> None:
    for i in range(len(indptr) - 1):
        start, stop = indptr[i], indptr[i + 1]
        negative = -values[start:stop]
        if len(lottery):
            drawn = np.argsort(lottery[start:stop])
            order[start:stop] = start + drawn[np.argsort(negative[drawn], kind="mergesort")]
        else:
            order[start:stop] = start + np.argsort(negative, kind="mergesort")


@compiled
def _rank_rows(indptr: np.ndarray, values: np.ndarray, order: np.ndarray, shared: int, ranks: np.ndarray) -> None:
    for row in range(len(indptr) - 1):
        start, stop = indptr[row], indptr[row + 1]
        i = start
        while i < stop:
            j = i + 1
            while shared and j < stop and values[order[j]] == values[order[i]]:
                j += 1
            # positions i ... j - 1 of the order are one block of equal values
            rank = i - start + 1.0 + (0.5 * (j - i - 1) if shared == 1 else 0.0)
            for position in range(i, j):
                ranks[order[position]] = rank
            i = j


def order_rows(matrix: sparse.csr_matrix, *, rng: np.random.Generator | None = None) -> np.ndarray:
    """Positions of the stored entries, row by row, the largest value of each row first.

    Parameters
    ----------
    matrix
        CSR with sorted column indices and without stored zeros.
    rng
        Draws the order of equal values; ``None`` leaves them in the order of their columns. One number is drawn for
        each entry, so that rows get the same order in blocks as at once.
    """
    order = np.empty(matrix.nnz, np.int64)
    lottery = np.empty(0) if rng is None else rng.random(matrix.nnz)
    _order_rows(matrix.indptr, matrix.data, lottery, order)
    return order


def positions_in_rows(indptr: np.ndarray) -> np.ndarray:
    """Position of every entry within its row, counted from 0."""
    return np.arange(indptr[-1]) - np.repeat(indptr[:-1], np.diff(indptr))


def with_data(matrix: sparse.csr_matrix, values: np.ndarray) -> sparse.csr_matrix:
    """The same entries with other values."""
    return sparse.csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape)


def keep_entries(matrix: sparse.csr_matrix, values: np.ndarray, kept: np.ndarray) -> sparse.csr_matrix:
    """The stored entries that `kept` marks, with other values."""
    indptr = np.r_[0, np.cumsum(kept)][matrix.indptr]
    return sparse.csr_matrix((values[kept], matrix.indices[kept], indptr), shape=matrix.shape)


def rank_of_zeros(n_ranked: np.ndarray, n_genes: int, *, ties: str) -> np.ndarray:
    """Rank that all zeros of a row share when they follow its other entries; NaN in rows without zeros.

    It is the smallest rank of the block with ``ties="min"`` and its mean otherwise.
    """
    n_zeros = n_genes - n_ranked
    return np.where(n_zeros > 0, n_ranked + (1.0 if ties == "min" else 0.5 * (n_zeros + 1)), np.nan)


def rank_rows(matrix: sparse.csr_matrix, order: np.ndarray, *, ties: str) -> np.ndarray:
    """Rank of every stored entry within its row, 1 for the largest.

    Parameters
    ----------
    matrix
        What `order` was made from.
    order
        From :func:`order_rows`.
    ties
        ``"average"`` or ``"min"`` give equal values one rank; ``"first"`` and ``"random"`` number them by `order`.
    """
    ranks = np.empty(matrix.nnz)
    _rank_rows(matrix.indptr, matrix.data, order, _SHARED[ties], ranks)
    return ranks
