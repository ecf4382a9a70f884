"""What is the rank of every entry? Only non-zeros are sorted; all zeros of a column are one block of ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled


@dataclass(frozen=True)
class RankedColumns:
    """A sparse matrix with the entries of every column in descending order, and their ranks among all rows.

    Ranks start at 1 for the smallest value, and equal values share their mean rank.

    See Also
    --------
    sparsesc.stats.rank_columns : sort and rank a sparse matrix

    Examples
    --------
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> ranked = ssc.stats.rank_columns(sparse.csr_matrix([[5.0], [0.0], [2.0], [2.0]]))
    >>> (ranked.deviation + ranked.zero_rank).tolist()
    [4.0, 2.5, 2.5]
    """

    shape: tuple[int, int]
    indptr: np.ndarray
    """Where the entries of each column start, as in CSC."""
    rows: np.ndarray
    values: np.ndarray
    """Non-zero, descending within a column."""
    deviation: np.ndarray
    """Rank of each entry less the rank of the zeros of its column: 0 wherever nothing is stored."""
    zero_rank: np.ndarray
    """Rank of the zeros, by column."""
    ties: np.ndarray
    """Sum of t^3 - t over the blocks of t equal values, by column."""
    skewness: np.ndarray
    """Population skewness of the ranks, by column; 0 for constant columns."""

    @property
    def variance(self) -> np.ndarray:
        """Population variance of the ranks, by column; exactly 0 for constant columns."""
        n = float(self.shape[0])
        return np.maximum((n**3 - n) - self.ties, 0.0) / (12.0 * n)

    def with_data(self, data: np.ndarray) -> sparse.csc_matrix:
        """The matrix with other values in the place of its entries."""
        return sparse.csc_matrix((data, self.rows, self.indptr), shape=self.shape)


@compiled
def _sort_columns(indptr: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
    for f in range(len(indptr) - 1):
        start, stop = indptr[f], indptr[f + 1]
        order = np.argsort(-values[start:stop])
        rows[start:stop] = rows[start:stop][order]
        values[start:stop] = values[start:stop][order]


@compiled
def _rank(
    indptr: np.ndarray,
    values: np.ndarray,
    n: int,
    deviation: np.ndarray,
    zero_rank: np.ndarray,
    ties: np.ndarray,
    third: np.ndarray,
) -> None:
    mean = 0.5 * (n + 1.0)
    for f in range(len(indptr) - 1):
        start, stop = indptr[f], indptr[f + 1]
        n_zeros = float(n - (stop - start))
        n_positive = np.sum(values[start:stop] > 0)
        middle = n - n_positive - 0.5 * (n_zeros - 1.0)
        zero_rank[f] = middle
        ties[f] = n_zeros**3 - n_zeros
        third[f] = n_zeros * (middle - mean) ** 3
        i = start
        while i < stop:
            j = i + 1
            while j < stop and values[j] == values[i]:
                j += 1
            size = float(j - i)
            above = i - start + (n_zeros if values[i] < 0 else 0.0)
            rank = n - above - 0.5 * (size - 1.0)
            deviation[i:j] = rank - middle
            ties[f] += size**3 - size
            third[f] += size * (rank - mean) ** 3
            i = j
        third[f] /= n


def rank_columns(matrix: sparse.spmatrix | RankedColumns) -> RankedColumns:
    r"""Sort and rank every feature once, so that several statistics can share the work.

    Parameters
    ----------
    matrix
        Rows x columns, for example cells x features. Negative values rank below the zeros. What is ranked already is
        returned, so that functions of this package can share the work.

    Returns
    -------
    Sorted entries, their ranks, and what ties do to the variance and skewness of ranks.

    Raises
    ------
    ValueError
        If values are NaN.

    See Also
    --------
    sparsesc.stats.auroc : area under the ROC curve, from ranks
    sparsesc.stats.mann_whitney : test of the ranks in every group
    sparsesc.stats.best_f1 : the best threshold, from sorted values

    Notes
    -----
    Of :math:`n` rows in blocks of :math:`t` equal values, the ranks of a column have the variance

    .. math::
        \frac{(n^3 - n) - \sum_t (t^3 - t)}{12 n} .

    Examples
    --------
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> ranked = ssc.stats.rank_columns(sparse.csr_matrix([[5.0], [0.0], [2.0], [2.0]]))
    >>> ranked.values.tolist()
    [5.0, 2.0, 2.0]
    >>> ranked.zero_rank.tolist()
    [1.0]
    """
    if isinstance(matrix, RankedColumns):
        return matrix
    csc = sparse.csc_matrix(matrix, copy=True)
    csc.sum_duplicates()
    csc.eliminate_zeros()
    if np.isnan(csc.data).any():
        msg = f"Cannot rank NaN: {int(np.isnan(csc.data).sum())} of {csc.nnz} stored values are NaN."
        raise ValueError(msg)
    indptr, rows, values = csc.indptr.astype(np.int64), csc.indices.astype(np.int32), csc.data
    n, n_columns = csc.shape
    _sort_columns(indptr, rows, values)
    deviation = np.empty(len(values))
    zero_rank, ties, third = np.empty(n_columns), np.empty(n_columns), np.empty(n_columns)
    _rank(indptr, values, n, deviation, zero_rank, ties, third)
    out = RankedColumns(csc.shape, indptr, rows, values, deviation, zero_rank, ties, skewness=third)
    spread = out.variance**1.5
    np.divide(third, spread, out=third, where=spread > 0)
    third[spread == 0] = 0.0
    return out
