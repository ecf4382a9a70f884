"""Does a gene rise and fall with a feature? Pearson r over all cells, worked out from the active cells alone."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled
from sparsesc.stats.core._pearson3 import log_p_relabeled
from sparsesc.stats.core._row_blocks import ColumnTotals, column_totals
from sparsesc.stats.core._student import log_p_t, log_p_two_sided

from ._gene_tests import GeneBlock


@compiled
def _add_weighted_sums(
    row0: int,
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    cursor: np.ndarray,
    ends: np.ndarray,
    rows: np.ndarray,
    activation: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add a block of rows to ``sums`` (features x genes x {activation-weighted sum, sum}), moving the cursors."""
    stop = row0 + len(indptr) - 1
    for f in range(len(cursor)):
        p = cursor[f]
        s = sums[f]
        while p < ends[f] and rows[p] < stop:
            row = rows[p] - row0
            a = np.float64(activation[p])
            for i in range(indptr[row], indptr[row + 1]):
                v = np.float64(data[i])
                g = indices[i]
                s[g, 0] += a * v
                s[g, 1] += v
            p += 1
        cursor[f] = p


@compiled
def _correlate_rows(
    sums: np.ndarray,
    mean_activation: np.ndarray,
    sd_activation: np.ndarray,
    n: int,
    mean: np.ndarray,
    sd: np.ndarray,
    skew_activation: np.ndarray,
    skewness: np.ndarray,
    relabel: bool,
    with_p: bool,
    r: np.ndarray,
    log_p: np.ndarray,
) -> None:
    """Pearson r and the logarithm of a two-sided p; r is 0 and p is 1 for constants.

    With ``relabel`` p is that of r when cells are shuffled, otherwise that of t with n - 2 degrees of freedom.
    Without ``with_p`` all p are 1.
    """
    for f in range(len(mean_activation)):
        for g in range(len(mean)):
            spread = sd_activation[f] * sd[g]
            r[f, g], log_p[f, g] = 0.0, 0.0
            if spread > 0.0:
                value = (sums[f, g, 0] / n - mean_activation[f] * mean[g]) / spread
                value = min(max(value, -1.0), 1.0)
                r[f, g] = value
                if not with_p:
                    continue
                if relabel:
                    log_p[f, g] = log_p_relabeled(value, skew_activation[f] * skewness[g], n)
                    continue
                log_p[f, g] = log_p_t(value * math.sqrt((n - 2.0) / max(1.0 - value * value, 1e-16)), n - 2.0)


class PearsonTest:
    """Pearson r of activation and expression over all cells.

    Parameters
    ----------
    codes
        Cells x features.
    totals
        Sums over all cells.
    min_cells
        Features active in fewer cells, or silent in none, are not tested.
    relabel
        Take p from shuffling cells rather than from the t distribution.
    with_p
        Whether p is needed: without it, all p are 1.
    """

    def __init__(
        self, codes: sparse.csr_matrix, totals: ColumnTotals, *, min_cells: int, relabel: bool, with_p: bool = True
    ) -> None:
        csc = codes.tocsc(copy=True)
        csc.eliminate_zeros()
        csc.sort_indices()
        indptr = csc.indptr.astype(np.int64)
        self._rows, self._activation = csc.indices.astype(np.int32), csc.data
        self._n_active = np.diff(indptr)
        self._totals = totals
        self._relabel, self._with_p = relabel, with_p
        self._activations = column_totals(csc)
        self._sd = np.sqrt(self._activations.variance)
        self.tested = (self._n_active >= min_cells) & (self._sd > 0)
        self.starts = indptr[:-1]
        self.sums_shape: tuple[int, ...] = (len(totals.total), 2)
        self._ends = np.where(self.tested, indptr[1:], -1)

    def accumulate(
        self, row0: int, block: sparse.csr_matrix, features: slice, cursor: np.ndarray, sums: np.ndarray
    ) -> None:
        """Add a block of rows to the sums of some features."""
        ends = self._ends[features]
        _add_weighted_sums(
            row0, block.indptr, block.indices, block.data, cursor, ends, self._rows, self._activation, sums
        )

    def finish(self, features: slice, sums: np.ndarray) -> GeneBlock:
        """Turn sums over all rows into r, p and what describes a pair."""
        totals, activations = self._totals, self._activations
        r = np.empty((len(sums), len(totals.total)))
        log_p = np.empty_like(r)
        _correlate_rows(
            sums, activations.mean[features], self._sd[features], totals.n, totals.mean, np.sqrt(totals.variance),
            activations.skewness[features], totals.skewness, self._relabel, self._with_p, r, log_p,
        )  # fmt: skip
        describe = partial(self._describe, self._n_active[features], sums, r)
        return GeneBlock(features.start, features.stop, r, log_p, describe)

    def _describe(
        self, n_active: np.ndarray, sums: np.ndarray, r: np.ndarray, features: np.ndarray, genes: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Means in active and in silent cells; the effect size is r itself."""
        n_active, total, r = n_active[features], sums[features, genes, 1], r[features, genes]
        mean_out = (self._totals.total[genes] - total) / np.maximum(self._totals.n - n_active, 1)
        columns = {"mean_in": total / n_active, "mean_out": mean_out, "effect_size": r}
        if not self._relabel:
            return columns
        df = self._totals.n - 2
        return columns | {"pval_parametric": np.exp(log_p_two_sided(r * np.sqrt(df / np.maximum(1 - r**2, 1e-16)), df))}
