"""How large is every column in each group of rows? Sums, means and variances of a sparse matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True)
class GroupMoments:
    """Size, sum and sum of squares of every group, with means and variances.

    ``n`` is by group, the others columns x groups, float64.

    See Also
    --------
    sparsesc.stats.group_moments : work these out from a sparse matrix

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> codes = sparse.csr_matrix([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    >>> groups = np.array([0, 0, 1, 1])
    >>> moments = ssc.stats.group_moments(codes, groups)
    >>> moments.total_mean.tolist()
    [1.5, 0.75]
    """

    n: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean in each group (NaN in an empty one)."""
        return _divide(self.sums, self.n)

    @property
    def variance(self) -> np.ndarray:
        """Unbiased variance in each group (NaN below two rows), exactly 0 where all that is left is rounding."""
        deviations = self.squares - self.sums * self.mean
        return _divide(np.where(deviations > 1e-12 * self.squares, deviations, 0.0), self.n - 1)

    @property
    def mean_rest(self) -> np.ndarray:
        """Mean of the rows outside each group (NaN when there are none)."""
        return _divide(self.sums.sum(axis=1, keepdims=True) - self.sums, self.n.sum() - self.n)

    @property
    def total_mean(self) -> np.ndarray:
        """Mean of each column over all groups."""
        return self.sums.sum(axis=1) / self.n.sum()

    @property
    def total_variance(self) -> np.ndarray:
        """Population variance of each column over all groups, exactly 0 where all that is left is rounding."""
        second = self.squares.sum(axis=1) / self.n.sum()
        variance = second - self.total_mean**2
        return np.where(variance > 1e-12 * second, variance, 0.0)


def _divide(a: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.divide(a, n, out=np.full(a.shape, np.nan), where=np.broadcast_to(n > 0, a.shape))


def group_sizes(groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Cells of each group, as floating point numbers."""
    return np.bincount(groups, minlength=n_groups).astype(np.float64)


def check_groups(groups: np.ndarray, n_rows: int, n_groups: int | None = None) -> tuple[np.ndarray, int]:
    """Group codes as int64, and how many groups there are.

    Raises
    ------
    ValueError
        If there is not one code a row, or a code is negative or too large.
    """
    groups = np.asarray(groups)
    if groups.shape != (n_rows,) or not (np.issubdtype(groups.dtype, np.integer) or groups.dtype == bool):
        what = f"{groups.dtype} of shape {groups.shape}"
        msg = f"groups must hold one whole number for each of {n_rows} rows, found {what}."
        raise ValueError(msg)
    groups = groups.astype(np.int64)
    n_groups = int(groups.max(initial=-1)) + 1 if n_groups is None else n_groups
    if groups.min(initial=0) < 0 or groups.max(initial=0) >= max(n_groups, 1):
        msg = (
            f"groups must lie between 0 and {n_groups - 1}, found {groups.min()} to {groups.max()}. "
            "Leave rows without a group out of the matrix as well."
        )
        raise ValueError(msg)
    return groups, n_groups


def group_sums(matrix: sparse.spmatrix, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Sums of every column over the rows of each group, columns x groups, float64, by one sparse product."""
    n_rows = matrix.shape[0]
    one_hot = sparse.csr_matrix((np.ones(n_rows), (groups, np.arange(n_rows))), shape=(n_groups, n_rows))
    return np.ascontiguousarray((one_hot @ sparse.csr_matrix(matrix)).toarray().T)


def group_moments(matrix: sparse.spmatrix, groups: np.ndarray, n_groups: int | None = None) -> GroupMoments:
    r"""Mean and variance of every feature in every group of cells, from the non-zeros alone.

    Parameters
    ----------
    matrix
        Rows x columns, for example cells x features; never densified.
    groups
        Group of each row, ``0 ... n_groups - 1``.
    n_groups
        Number of groups; ``None``: the largest code plus one.

    Returns
    -------
    Group sizes and sums, with means and variances as properties (columns x groups).

    Raises
    ------
    ValueError
        If `groups` does not fit the matrix.

    See Also
    --------
    sparsesc.stats.pearson_one_hot : correlation of features with membership in groups
    sparsesc.stats.group_contrasts : tests and ratios of the means

    Notes ----- With :math:`S` the sum and :math:`Q` the sum of squares of a column in a group of :math:`n` rows, its
    mean and variance are

    .. math::
        m = S / n, \qquad s^2 = \frac{Q - S^2 / n}{n - 1} .

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> codes = sparse.csr_matrix([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    >>> groups = np.array([0, 0, 1, 1])
    >>> moments = ssc.stats.group_moments(codes, groups)
    >>> moments.mean.tolist()
    [[3.0, 0.0], [0.0, 1.5]]
    >>> moments.variance.tolist()
    [[2.0, 0.0], [0.0, 4.5]]
    """
    groups, n_groups = check_groups(groups, matrix.shape[0], n_groups)
    matrix = sparse.csr_matrix(matrix)
    squares = sparse.csr_matrix((matrix.data.astype(np.float64) ** 2, matrix.indices, matrix.indptr), matrix.shape)
    n = group_sizes(groups, n_groups)
    return GroupMoments(n, group_sums(matrix, groups, n_groups), group_sums(squares, groups, n_groups))
