"""How well does a feature find a group of cells, when cells above a threshold are called?"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled
from sparsesc.stats.core._moments import check_groups, group_sizes
from sparsesc.stats.core._ranks import RankedColumns, rank_columns


@compiled
def _best(
    indptr: np.ndarray,
    rows: np.ndarray,
    values: np.ndarray,
    groups: np.ndarray,
    sizes: np.ndarray,
    f1: np.ndarray,
    threshold: np.ndarray,
) -> None:
    hits = np.zeros(len(sizes))
    for f in range(len(indptr) - 1):
        start, stop = indptr[f], indptr[f + 1]
        hits[:] = 0.0
        i = start
        while i < stop and values[i] > 0:
            j = i
            while j < stop and values[j] == values[i]:  # equal values are called together
                hits[groups[rows[j]]] += 1.0
                j += 1
            # F1 of a group can only have risen if one of its cells has just been called
            for k in range(i, j):
                c = groups[rows[k]]
                score = 2.0 * hits[c] / (j - start + sizes[c])
                if score > f1[f, c]:
                    f1[f, c] = score
                    threshold[f, c] = values[j] if j < stop and values[j] > 0 else 0.0
            i = j


@compiled
def _at(
    indptr: np.ndarray,
    rows: np.ndarray,
    values: np.ndarray,
    groups: np.ndarray,
    sizes: np.ndarray,
    columns: np.ndarray,
    wanted: np.ndarray,
    thresholds: np.ndarray,
    f1: np.ndarray,
) -> None:
    for p in range(len(columns)):
        start, stop = indptr[columns[p]], indptr[columns[p] + 1]
        i = start
        hits = 0
        while i < stop and values[i] > thresholds[p]:
            hits += groups[rows[i]] == wanted[p]
            i += 1
        f1[p] = 2.0 * hits / max(i - start + sizes[wanted[p]], 1)


def best_f1(
    codes: sparse.spmatrix | RankedColumns, groups: np.ndarray, n_groups: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""How well a threshold on a feature finds the cells of a group: the best F1 over all thresholds.

    Parameters
    ----------
    codes
        Cells x features, sparse (or ranked already).
    groups
        Group of each cell, ``0 ... n_groups - 1``.
    n_groups
        Number of groups; ``None``: the largest code plus one.

    Returns
    -------
    F1 and threshold, both features x groups: cells with ``activation > threshold`` are called. The threshold is never
    negative, so a silent cell is never called; it is the largest activation that is not called any more. Both are 0
    where no cell of the group is active.

    Raises
    ------
    ValueError
        If `groups` does not fit the codes.

    See Also
    --------
    sparsesc.stats.f1_at : F1 at thresholds that were chosen before
    sparsesc.stats.best_detector : several features together
    sparsesc.stats.auroc : all thresholds at once

    Notes
    -----
    Of a group of :math:`n_1` cells, with :math:`c` cells called and :math:`h` of them in the group,

    .. math::
        F_1 = \frac{2 h}{c + n_1} .

    The maximum over thresholds is optimistic on the cells it was taken from: to judge a feature, apply the threshold to
    other cells (:func:`f1_at`).

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> codes = sparse.csr_matrix([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    >>> groups = np.array([0, 0, 1, 1])
    >>> f1, threshold = ssc.stats.best_f1(codes, groups)
    >>> f1.round(2).tolist()
    [[1.0, 0.0], [0.0, 0.67]]
    """
    ranked = rank_columns(codes)
    groups, n_groups = check_groups(groups, ranked.shape[0], n_groups)
    sizes = group_sizes(groups, n_groups)
    f1, threshold = np.zeros((ranked.shape[1], n_groups)), np.zeros((ranked.shape[1], n_groups))
    _best(ranked.indptr, ranked.rows, ranked.values, groups, sizes, f1, threshold)
    return f1, threshold


def f1_at(
    codes: sparse.spmatrix | RankedColumns,
    groups: np.ndarray,
    *,
    features: np.ndarray,
    wanted: np.ndarray,
    thresholds: np.ndarray,
    n_groups: int | None = None,
) -> np.ndarray:
    """F1 of chosen features for chosen groups, at thresholds that other cells gave.

    Parameters
    ----------
    codes
        Cells x features, sparse (or ranked already).
    groups
        Group of each cell, ``0 ... n_groups - 1``.
    features
        Positions of the features of the pairs.
    wanted
        Group of each pair.
    thresholds
        Cells with ``activation > threshold`` are called; not negative.
    n_groups
        Number of groups; ``None``: the largest code plus one.

    Returns
    -------
    F1, one a pair; 0 where no cell is called.

    Raises
    ------
    ValueError
        If `groups` does not fit the codes, or a threshold is negative.

    See Also
    --------
    sparsesc.stats.best_f1 : choose the thresholds
    sparsesc.stats.recovery : choose features and score them, in one call

    Notes
    -----
    Of a group of :math:`n_1` cells, with :math:`c` cells called and :math:`h` of them in the group,
    :math:`F_1 = 2 h / (c + n_1)`.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> codes = sparse.csr_matrix([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    >>> groups = np.array([0, 0, 1, 1])
    >>> ssc.stats.f1_at(codes, groups, features=[0, 1], wanted=[0, 1], thresholds=[2.0, 0.0]).round(2).tolist()
    [0.67, 0.67]
    """
    ranked = rank_columns(codes)
    groups, n_groups = check_groups(groups, ranked.shape[0], n_groups)
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if (thresholds < 0).any():
        msg = f"Thresholds must not be negative, found {thresholds.min():g}."
        raise ValueError(msg)
    sizes = np.bincount(groups, minlength=n_groups)
    f1 = np.zeros(len(thresholds))
    columns, wanted = np.asarray(features, dtype=np.int64), np.asarray(wanted, dtype=np.int64)
    _at(ranked.indptr, ranked.rows, ranked.values, groups, sizes, columns, wanted, thresholds, f1)
    return f1
