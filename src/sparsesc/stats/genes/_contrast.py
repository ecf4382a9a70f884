"""Strongly active against silent cells, for every feature and gene.

The sums over the strong and over the other active cells of a feature come from a sparse product of its codes with the
expression matrix; those over the silent cells are what is left of the sums over all cells, so that every silent cell
is used at no cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled
from sparsesc.stats.core._pearson3 import log_p_relabelled
from sparsesc.stats.core._row_blocks import ColumnTotals
from sparsesc.stats.core._student import log_p_t

STRONG, OTHER = 0, 1
_ROUNDING = 1e-12
_MAX_T = 1e4


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
    quantile: float,
    min_cells: int,
    n_silent: int | None = None,
    rng: np.random.Generator | None = None,
) -> Membership:
    """Strong cells (activation at or above a `quantile` of the feature's non-zero activations) and silent cells.

    Parameters
    ----------
    codes
        Cells x features, non-negative.
    quantile
        Between 0 (all active cells) and 1 (the strongest one only).
    min_cells
        Where the quantile leaves fewer, the threshold falls to the `min_cells`-th strongest activation. Ties at the
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
            strong[indptr[f] : indptr[f + 1]] = values >= min(np.quantile(values, quantile, method="higher"), nth)
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


@compiled
def add_group_sums(
    row0: int,
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    cursor: np.ndarray,
    ends: np.ndarray,
    rows: np.ndarray,
    group: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add a block of rows to ``sums`` (features x 2 groups x genes x {sum, sum of squares}), moving the cursors."""
    stop = row0 + len(indptr) - 1
    for f in range(len(cursor)):
        p = cursor[f]
        while p < ends[f] and rows[p] < stop:
            row = rows[p] - row0
            s = sums[f, group[p]]
            for i in range(indptr[row], indptr[row + 1]):
                v = np.float64(data[i])
                g = indices[i]
                s[g, 0] += v
                s[g, 1] += v * v
            p += 1
        cursor[f] = p


@compiled
def _moments(n: float, total: float, squares: float, scale: float) -> tuple[float, float]:
    """Mean and unbiased variance; `scale` is the sum of squares that rounding is relative to."""
    if squares <= _ROUNDING * scale:
        return 0.0, 0.0
    mean = total / n
    deviations = squares - total * mean
    if deviations <= _ROUNDING * scale:
        return mean, 0.0
    return mean, deviations / (n - 1.0)


@compiled
def _pair(
    sums: np.ndarray, g: int, n1: float, n0: float, sampled: bool, total: float, squares: float
) -> tuple[float, float, float, float]:
    """Mean and variance of one gene in the strong and in the silent cells of one feature."""
    s1, q1 = sums[0, g, 0], sums[0, g, 1]
    s0, q0 = sums[1, g, 0], sums[1, g, 1]
    if not sampled:
        s0, q0 = total - s1 - s0, squares - q1 - q0
    mean1, var1 = _moments(n1, s1, q1, q1)
    mean0, var0 = _moments(n0, s0, q0, q0 if sampled else squares)
    return mean1, var1, mean0, var0


@compiled
def _welch(
    mean1: float, var1: float, n1: float, mean0: float, var0: float, n0: float, trusted_n: float
) -> tuple[float, float]:
    """Welch's t and its degrees of freedom; a group smaller than ``trusted_n`` gets at least the other's variance."""
    raw1 = var1
    if n1 < trusted_n:
        var1 = max(var1, var0)
    if n0 < trusted_n:
        var0 = max(var0, raw1)
    difference = mean1 - mean0
    e1, e0 = var1 / n1, var0 / n0
    error = e1 + e0
    if error == 0.0 and abs(difference) <= 1e-9 * (abs(mean1) + abs(mean0)):
        difference = 0.0
    if difference == 0.0:
        return 0.0, n1 + n0 - 2.0
    t = difference / max(math.sqrt(error), abs(difference) / _MAX_T)
    if error == 0.0:  # two different constants
        return t, n1 + n0 - 2.0
    return t, error * error / (e1 * e1 / (n1 - 1.0) + e0 * e0 / (n0 - 1.0))


@compiled
def _point_biserial(mean1: float, var1: float, n1: float, mean0: float, var0: float, n0: float) -> float:
    """Pearson r between expression and being strong, over the strong and the silent cells."""
    n = n1 + n0
    f = n1 / n
    between = f * (1.0 - f) * (mean1 - mean0) ** 2
    total = ((n1 - 1.0) * var1 + (n0 - 1.0) * var0) / n + between
    return math.copysign(math.sqrt(between / total), mean1 - mean0) if total > 0.0 else 0.0


@compiled
def contrast_rows(
    sums: np.ndarray,
    n_strong: np.ndarray,
    n_silent: np.ndarray,
    sampled: bool,
    total: np.ndarray,
    squares: np.ndarray,
    skewness: np.ndarray,
    trusted_n: np.ndarray,
    relabel: bool,
    with_p: bool,
    t: np.ndarray,
    log_p: np.ndarray,
) -> None:
    """Welch's t and the logarithm of a two-sided p for features x genes.

    With ``relabel`` p is that of the difference of means under random relabelling of cells, otherwise that of t.
    Without ``with_p`` all p are 1: they take most of the time.
    """
    for f in range(len(n_strong)):
        n1, n0 = float(n_strong[f]), float(n_silent[f])
        n = n1 + n0
        if min(n1, n0) < 2.0:  # no variance to compare with: such features are not among the tested
            t[f] = 0.0
            log_p[f] = 0.0
            continue
        for g in range(len(total)):
            mean1, var1, mean0, var0 = _pair(sums[f], g, n1, n0, sampled, total[g], squares[g])
            statistic, df = _welch(mean1, var1, n1, mean0, var0, n0, trusted_n[g])
            t[f, g] = statistic
            if statistic == 0.0 or not with_p:
                log_p[f, g] = 0.0
            elif relabel:
                r = _point_biserial(mean1, var1, n1, mean0, var0, n0)
                log_p[f, g] = log_p_relabelled(r, skewness[g] * (n0 - n1) / math.sqrt(n1 * n0), n)
            else:
                log_p[f, g] = log_p_t(statistic, df)


@compiled
def describe_pairs(
    sums: np.ndarray,
    n_strong: np.ndarray,
    n_silent: np.ndarray,
    sampled: bool,
    total: np.ndarray,
    squares: np.ndarray,
    trusted_n: np.ndarray,
    features: np.ndarray,
    genes: np.ndarray,
    out: np.ndarray,
) -> None:
    """For chosen pairs of feature and gene: mean and variance in strong and in silent cells, log p of Welch's t."""
    for i in range(len(features)):
        f, g = features[i], genes[i]
        n1, n0 = float(n_strong[f]), float(n_silent[f])
        mean1, var1, mean0, var0 = _pair(sums[f], g, n1, n0, sampled, total[g], squares[g])
        t, df = _welch(mean1, var1, n1, mean0, var0, n0, trusted_n[g])
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = mean1, var1, mean0, var0
        out[i, 4] = log_p_t(t, df)


def trusted_group_size(totals: ColumnTotals, skew_guard: float) -> np.ndarray:
    """Smallest group whose mean of a gene is near enough to normal: ``skew_guard`` x squared skewness (Cochran)."""
    return skew_guard * totals.skewness**2
