"""Which cells of a feature are compared: those in which it is strongly active, and those in which it is silent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

STRONG, OTHER = 0, 1


@dataclass(frozen=True)
class Membership:
    """Which cells of each feature are summed: column pointers and sorted rows, as in CSC, and groups."""

    indptr: np.ndarray
    rows: np.ndarray
    group: np.ndarray
    """`STRONG`, or `OTHER`: weakly active cells, or the sampled silent ones when `sampled`."""
    n_strong: np.ndarray
    n_silent: np.ndarray
    sampled: bool
    """Whether the silent cells are listed, rather than all that are not."""

    def tested(self, min_cells: int) -> np.ndarray:
        """Features with at least `min_cells` cells on either side."""
        return (self.n_strong >= min_cells) & (self.n_silent >= max(min_cells, 2))


def strong_and_silent(
    codes: sparse.csr_matrix,
    *,
    quantile: float | None = None,
    thresholds: np.ndarray | None = None,
    min_cells: int,
    n_silent: int | None = None,
    rng: np.random.Generator | None = None,
) -> Membership:
    """Strong cells (activation above a threshold, or at or above a quantile) and silent cells (activation 0).

    Parameters
    ----------
    codes
        Cells x features, non-negative.
    quantile
        Of the non-zero activations of each feature, between 0 (all active cells) and 1 (the strongest one only).
    thresholds
        In place of `quantile`: an activation for each feature.
    min_cells
        Where that leaves fewer, the threshold falls to the `min_cells`-th strongest activation. Ties at the
        threshold are all taken, so the order of cells never matters.
    n_silent
        Sample at most so many silent cells for each feature; ``None`` takes all.
    rng
        Draws that sample.
    """
    csc = codes.tocsc(copy=True)
    csc.eliminate_zeros()
    csc.sort_indices()
    n_cells, n_features = csc.shape
    indptr = csc.indptr.astype(np.int64)
    strong = np.zeros(csc.nnz, bool)
    for f in range(n_features):
        values = csc.data[indptr[f] : indptr[f + 1]]
        if len(values):
            nth = np.partition(values, -min_cells)[-min_cells] if len(values) > min_cells else values.min()
            if thresholds is not None:
                above = values > thresholds[f]
            else:
                assert quantile is not None
                above = values >= np.quantile(values, quantile, method="higher")
            strong[indptr[f] : indptr[f + 1]] = above | (values >= nth)
    n_active = np.diff(indptr)
    n_strong = np.diff(np.r_[0, np.cumsum(strong)][indptr])
    rows = csc.indices.astype(np.int32)
    if n_silent is None:
        group = np.where(strong, STRONG, OTHER).astype(np.uint8)
        return Membership(indptr, rows, group, n_strong, n_cells - n_active, sampled=False)
    rng = np.random.default_rng(rng)
    active = np.zeros(n_cells, bool)
    lists, groups = [], []
    for f in range(n_features):
        entries = slice(indptr[f], indptr[f + 1])
        # so many draws that enough are left once the active cells among them are dropped
        drawn = rng.choice(n_cells, size=min(n_cells, n_silent + n_active[f]), replace=False)
        active[rows[entries]] = True
        chosen = drawn[~active[drawn]][:n_silent].astype(np.int32)
        active[rows[entries]] = False
        both = np.r_[rows[entries][strong[entries]], chosen]
        order = np.argsort(both)
        lists.append(both[order])
        groups.append(np.repeat([STRONG, OTHER], [n_strong[f], len(chosen)]).astype(np.uint8)[order])
    sampled_counts = np.array([len(rows_of) for rows_of in lists], np.int64)
    return Membership(
        np.r_[0, np.cumsum(sampled_counts)],
        np.concatenate([np.empty(0, np.int32), *lists]),
        np.concatenate([np.empty(0, np.uint8), *groups]),
        n_strong,
        sampled_counts - n_strong,
        sampled=True,
    )
