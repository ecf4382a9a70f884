"""Which features are active in the same cells? Correlations and exact tests of all pairs, from the non-zeros."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import sparse, special

from sparsesc._compiled import compiled
from sparsesc.stats.core._row_blocks import column_totals
from sparsesc.stats.core._student import LOG_2


@compiled
def _log_p_overlap(factorials: np.ndarray, n: int, a: int, b: int, both: int) -> float:
    """Twice the smaller tail of the hypergeometric distribution, at most 1, as a logarithm."""
    low, high = max(0, a + b - n), min(a, b)
    if low == high:
        return 0.0
    at = factorials[a] - factorials[both] - factorials[a - both]
    at += factorials[n - a] - factorials[b - both] - factorials[n - a - b + both]
    at -= factorials[n] - factorials[b] - factorials[n - b]
    upward = both * n >= a * b
    term, total = 1.0, 1.0
    x = both
    while x < high if upward else x > low:
        if upward:
            term *= (a - x) * (b - x) / ((x + 1.0) * (n - a - b + x + 1.0))
            x += 1
        else:
            term *= x * (n - a - b + x) / ((a - x + 1.0) * (b - x + 1.0))
            x -= 1
        total += term
        if term < 1e-17 * total:
            break
    tail = at + math.log(total)
    if tail > -1.0:  # near the middle, the other tail may be the smaller one
        other = 1.0 - math.exp(tail) + math.exp(at)
        tail = min(tail, math.log(max(other, 1e-300)))
    return min(tail + LOG_2, 0.0)


@compiled
def _flat_overlap(
    factorials: np.ndarray, n: int, a: np.ndarray, b: np.ndarray, both: np.ndarray, out: np.ndarray
) -> None:
    for i in range(len(out)):
        out[i] = _log_p_overlap(factorials, n, a[i], b[i], both[i])


@compiled
def _later_pairs(
    factorials: np.ndarray, n: int, sizes: np.ndarray, start: int, both: np.ndarray, out: np.ndarray
) -> int:
    """P-values of the rows of a block with all later features; how many there are."""
    k = 0
    for i in range(len(both)):
        for j in range(start + i + 1, len(sizes)):
            if sizes[start + i] > 0 and sizes[j] > 0:
                out[k] = _log_p_overlap(factorials, n, sizes[start + i], sizes[j], both[i, j])
                k += 1
    return k


def log_factorials(n: int) -> np.ndarray:
    """Logarithms of 0! ... n!."""
    return special.gammaln(np.arange(n + 1) + 1.0)


def overlap_test(n: int, a: np.ndarray | int, b: np.ndarray | int, both: np.ndarray | int) -> np.ndarray:
    r"""Test whether two features are active in the same cells more or less often than by chance.

    Parameters
    ----------
    n
        Number of cells.
    a, b
        Sizes of both sets.
    both
        Cells in both.

    Returns
    -------
    Natural logarithm of p, one a pair of sets: twice the smaller tail of the hypergeometric distribution, at most 1
    (the central version of Fisher's exact test). Discrete, hence conservative.

    See Also
    --------
    sparsesc.stats.benjamini_hochberg : adjust the p-values
    sparsesc.tl.feature_similarity : all pairs of features of an AnnData

    Notes ----- If sets of :math:`a` and :math:`b` of :math:`n` cells are drawn independently, the probability of
    :math:`k` common cells is

    .. math::
        P(k) = \binom{a}{k} \binom{n - a}{b - k} \bigg/ \binom{n}{b} .

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> log_p = ssc.stats.overlap_test(100, 10, 10, [1, 8])
    >>> (np.exp(log_p) < 0.05).tolist()
    [False, True]
    """
    a, b, both = (np.ascontiguousarray(np.ravel(v), dtype=np.int64) for v in np.broadcast_arrays(a, b, both))
    out = np.empty(len(a))
    _flat_overlap(log_factorials(n), n, a, b, both, out)
    return out


class CoActivation:
    """Pairs of columns of a sparse non-negative matrix, block by block.

    Parameters
    ----------
    codes
        Cells x features, non-negative.
    """

    def __init__(self, codes: sparse.csr_matrix) -> None:
        columns = sparse.csr_matrix(codes, dtype=np.float64)
        columns.eliminate_zeros()
        self.n, self.n_features = columns.shape
        totals = column_totals(columns)
        self.sizes = np.bincount(columns.indices, minlength=self.n_features).astype(np.int64)
        """Cells in which each feature is active."""
        self._scale = totals.inverse_sd
        self._center = totals.mean * self._scale
        self._codes = columns
        self._active = sparse.csr_matrix(
            (np.ones(columns.nnz, np.int32), columns.indices, columns.indptr), columns.shape
        )
        self._codes_t, self._active_t = columns.T.tocsr(), self._active.T.tocsr()
        self._factorials = log_factorials(self.n)

    @property
    def n_pairs(self) -> int:
        """Pairs of features that are both active somewhere."""
        alive = int((self.sizes > 0).sum())
        return alive * (alive - 1) // 2

    def blocks(self, max_bytes: float) -> Iterator[tuple[int, int]]:
        """Bounds of blocks of features, of which a few dense arrays of block x features fit in `max_bytes`."""
        step = max(1, int(max_bytes / (48.0 * max(self.n_features, 1))))
        for start in range(0, self.n_features, step):
            yield start, min(start + step, self.n_features)

    def overlap(self, start: int, stop: int) -> np.ndarray:
        """Cells in which both are active, block x features."""
        return (self._active_t[start:stop] @ self._active).toarray()

    def pearson(self, start: int, stop: int) -> np.ndarray:
        """Pearson r of activations over all cells, silent ones included, block x features; 0 for constants."""
        r = (self._codes_t[start:stop] @ self._codes).toarray()
        r *= self._scale[start:stop, None] / self.n
        r *= self._scale
        r -= np.outer(self._center[start:stop], self._center)
        return np.clip(r, -1.0, 1.0, out=r)

    def log_p_later(self, start: int, both: np.ndarray) -> np.ndarray:
        """:func:`overlap_test` of the features of a block with all later ones, so each pair once."""
        out = np.empty(sum(self.n_features - 1 - i for i in range(start, start + len(both))))
        return out[: _later_pairs(self._factorials, self.n, self.sizes, start, both, out)]
