"""Which feature, direction and threshold find a group of cells best, by F1?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled
from sparsesc.stats.core._moments import check_groups, group_sizes
from sparsesc.stats.core._ranks import RankedColumns, rank_columns


@dataclass(frozen=True)
class DetectionRules:
    """For each group, which cells to call: those on one side of a threshold of one feature."""

    feature: np.ndarray
    sign: np.ndarray
    """1: cells above the threshold are called; -1: cells below."""
    threshold: np.ndarray
    f1: np.ndarray
    """On the cells that chose it: too high, and the more so the more features there are."""

    def apply(self, codes: sparse.spmatrix, groups: np.ndarray) -> np.ndarray:
        """F1 of each on other cells; 0 where none is called."""
        values = sparse.csc_matrix(codes)[:, self.feature].toarray()
        called = np.where(self.sign > 0, values > self.threshold, values < self.threshold)
        inside = groups[:, None] == np.arange(len(self.feature))
        hits = (called & inside).sum(axis=0)
        return 2.0 * hits / np.maximum(called.sum(axis=0) + inside.sum(axis=0), 1)


@compiled
def _search(
    indptr: np.ndarray,
    rows: np.ndarray,
    values: np.ndarray,
    groups: np.ndarray,
    sizes: np.ndarray,
    feature: np.ndarray,
    sign: np.ndarray,
    threshold: np.ndarray,
    best: np.ndarray,
) -> None:
    n, n_groups = len(groups), len(sizes)
    zeros, hits = np.zeros(n_groups), np.zeros(n_groups)
    for f in range(len(indptr) - 1):
        start, stop = indptr[f], indptr[f + 1]
        n_zeros = n - (stop - start)
        zeros[:] = sizes
        for i in range(start, stop):
            zeros[groups[rows[i]]] -= 1.0
        for direction in (1, -1):
            # cells are called from the largest value down, or from the smallest up; equal values together
            hits[:] = 0.0
            called = 0
            i, end = (start, stop) if direction == 1 else (stop - 1, start - 1)
            zeros_due = n_zeros > 0
            while i != end or zeros_due:
                if zeros_due and (i == end or direction * values[i] < 0):
                    zeros_due = False
                    called += n_zeros
                    hits += zeros
                    first, last = 0, 0
                else:
                    j = i
                    while j != end and values[j] == values[i]:
                        hits[groups[rows[j]]] += 1.0
                        called += 1
                        j += direction
                    first, last = i, j
                    i = j
                if called == n:
                    break  # to call every cell is to tell nothing
                limit = 0.0
                if i != end and not (zeros_due and direction * values[i] < 0):
                    limit = values[i]
                if first == last:
                    for c in range(n_groups):
                        score = 2.0 * hits[c] / (called + sizes[c])
                        if score > best[c]:
                            best[c], feature[c], sign[c], threshold[c] = score, f, direction, limit
                    continue
                k = first
                while k != last:  # F1 can only have risen for groups of the cells that have just been called
                    c = groups[rows[k]]
                    score = 2.0 * hits[c] / (called + sizes[c])
                    if score > best[c]:
                        best[c], feature[c], sign[c], threshold[c] = score, f, direction, limit
                    k += direction


def best_rules(
    codes: sparse.spmatrix | RankedColumns, groups: np.ndarray, n_groups: int | None = None
) -> DetectionRules:
    """Search all features, both directions and all thresholds for the largest F1 of each group.

    Parameters
    ----------
    codes
        Cells x features, sparse (or ranked already), with values of any sign.
    groups
        Group of each cell, ``0 ... n_groups - 1``.
    n_groups
        Number of groups; ``None``: the largest code plus one.

    Returns
    -------
    One feature, direction and threshold a group. The threshold is the nearest value that is not called.

    Raises
    ------
    ValueError
        If `groups` does not fit the codes.
    """
    ranked = rank_columns(codes)
    groups, n_groups = check_groups(groups, ranked.shape[0], n_groups)
    sizes = group_sizes(groups, n_groups)
    feature, sign = np.zeros(n_groups, np.int64), np.ones(n_groups, np.int64)
    threshold, best = np.zeros(n_groups), np.zeros(n_groups)
    _search(ranked.indptr, ranked.rows, ranked.values, groups, sizes, feature, sign, threshold, best)
    return DetectionRules(feature, sign, threshold, best)
