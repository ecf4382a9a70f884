"""Does a gene differ between the strong and the silent cells of a feature? Welch's t, for every feature and gene.

The sums over the strong and over the other active cells of a feature come from a sparse product of its codes with the
expression matrix. Those over the silent cells are what is left of the sums over all cells, so that every silent cell
is used at no cost.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled
from sparsesc.stats.core._pearson3 import log_p_relabeled
from sparsesc.stats.core._row_blocks import ColumnTotals
from sparsesc.stats.core._student import log_p_t

from ._gene_tests import GeneBlock
from ._strong_cells import Membership

ROUNDING = 1e-12
MAX_T = 1e4


@compiled
def _add_group_sums(
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
    if squares <= ROUNDING * scale:
        return 0.0, 0.0
    mean = total / n
    deviations = squares - total * mean
    if deviations <= ROUNDING * scale:
        return mean, 0.0
    return mean, deviations / (n - 1.0)


@compiled
def _moments_of_pair(
    sums: np.ndarray, g: int, n1: float, n0: float, sampled: bool, total: float, squares: float, slope: float
) -> tuple[float, float, float, float]:
    """Mean and variance of one gene in the strong and in the silent cells of one feature.

    `slope` times the mean over both is taken off the mean of the strong cells.
    """
    s1, q1 = sums[0, g, 0], sums[0, g, 1]
    s0, q0 = sums[1, g, 0], sums[1, g, 1]
    if not sampled:
        s0, q0 = total - s1 - s0, squares - q1 - q0
    mean1, var1 = _moments(n1, s1, q1, q1)
    mean0, var0 = _moments(n0, s0, q0, q0 if sampled else squares)
    if slope != 0.0:
        mean1 -= slope * (n1 * mean1 + n0 * mean0) / (n1 + n0)
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
    t = difference / max(math.sqrt(error), abs(difference) / MAX_T)
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
def _test_rows(
    sums: np.ndarray,
    n_strong: np.ndarray,
    n_silent: np.ndarray,
    slope: np.ndarray,
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

    With ``relabel`` p is that of the difference of means under random relabeling of cells, otherwise that of t.
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
            mean1, var1, mean0, var0 = _moments_of_pair(sums[f], g, n1, n0, sampled, total[g], squares[g], slope[f])
            statistic, df = _welch(mean1, var1, n1, mean0, var0, n0, trusted_n[g])
            t[f, g] = statistic
            if statistic == 0.0 or not with_p:
                log_p[f, g] = 0.0
            elif relabel:
                r = _point_biserial(mean1, var1, n1, mean0, var0, n0)
                log_p[f, g] = log_p_relabeled(r, skewness[g] * (n0 - n1) / math.sqrt(n1 * n0), n)
            else:
                log_p[f, g] = log_p_t(statistic, df)


@compiled
def _describe_pairs(
    sums: np.ndarray,
    n_strong: np.ndarray,
    n_silent: np.ndarray,
    slope: np.ndarray,
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
        mean1, var1, mean0, var0 = _moments_of_pair(sums[f], g, n1, n0, sampled, total[g], squares[g], slope[f])
        t, df = _welch(mean1, var1, n1, mean0, var0, n0, trusted_n[g])
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = mean1, var1, mean0, var0
        out[i, 4] = log_p_t(t, df)


def trusted_group_size(totals: ColumnTotals, skew_guard: float) -> np.ndarray:
    """Smallest group whose mean of a gene is near enough to normal: ``skew_guard`` x squared skewness (Cochran)."""
    return skew_guard * totals.skewness**2


class WelchTest:
    """Welch's t of the strongly active against the silent cells of each feature.

    Parameters
    ----------
    members
        The cells of both sides.
    totals
        Sums over all cells.
    min_cells
        Features with fewer cells on a side are not tested.
    skew_guard
        A group with fewer cells than this times the squared skewness of a gene is too small to estimate its variance:
        it then gets at least the variance of the other group. 0 leaves plain Welch.
    relabel
        Take p from random relabeling of cells rather than from the t distribution.
    with_p
        Whether p is needed: without it, all p are 1.
    slopes
        Of residuals: what :func:`~sparsesc.stats.genes._residuals.depth_slopes` says of each feature.
    """

    def __init__(
        self,
        members: Membership,
        totals: ColumnTotals,
        *,
        min_cells: int,
        skew_guard: float,
        relabel: bool,
        with_p: bool = True,
        slopes: np.ndarray | None = None,
    ) -> None:
        self.tested = members.tested(min_cells)
        self.starts = members.indptr[:-1]
        self.sums_shape: tuple[int, ...] = (2, len(totals.total), 2)
        self._members, self._totals = members, totals
        self._ends = np.where(self.tested, members.indptr[1:], -1)
        self._relabel, self._with_p = relabel, with_p
        self._slope = np.zeros(len(members.n_strong)) if slopes is None else slopes.ravel()
        self.trusted_n = trusted_group_size(totals, skew_guard)

    def accumulate(
        self, row0: int, block: sparse.csr_matrix, features: slice, cursor: np.ndarray, sums: np.ndarray
    ) -> None:
        """Add a block of rows to the sums of some features."""
        members, ends = self._members, self._ends[features]
        _add_group_sums(row0, block.indptr, block.indices, block.data, cursor, ends, members.rows, members.group, sums)

    def finish(self, features: slice, sums: np.ndarray) -> GeneBlock:
        """Turn sums over all rows into t, p and what describes a pair."""
        t = np.empty((len(sums), len(self._totals.total)))
        log_p = np.empty_like(t)
        members, totals = self._members, self._totals
        _test_rows(
            sums, members.n_strong[features], members.n_silent[features], self._slope[features], members.sampled,
            totals.total, totals.squares, totals.skewness, self.trusted_n, self._relabel, self._with_p, t, log_p,
        )  # fmt: skip
        return GeneBlock(features.start, features.stop, t, log_p, partial(self._describe, features, sums))

    def _describe(
        self, block: slice, sums: np.ndarray, features: np.ndarray, genes: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Means and Cohen's d: the difference of means over the root of the mean of both variances."""
        members, totals = self._members, self._totals
        out = np.empty((len(features), 5))
        _describe_pairs(
            sums, members.n_strong[block], members.n_silent[block], self._slope[block], members.sampled,
            totals.total, totals.squares, self.trusted_n, features, genes, out,
        )  # fmt: skip
        mean_in, var_in, mean_out, var_out, log_p = out.T
        spread = np.sqrt((var_in + var_out) / 2)
        effect = np.divide(mean_in - mean_out, spread, out=np.zeros_like(spread), where=spread > 0)
        columns = {"mean_in": mean_in, "mean_out": mean_out, "effect_size": effect}
        return columns | ({"pval_parametric": np.exp(log_p)} if self._relabel else {})
