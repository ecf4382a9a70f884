"""Pearson correlation of every feature's activation with every gene, over all cells, from the active cells alone."""

from __future__ import annotations

import math

import numpy as np

from sparsesc._compiled import compiled
from sparsesc.stats.core._pearson3 import log_p_relabelled
from sparsesc.stats.core._student import log_p_t


@compiled
def add_weighted_sums(
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
def pearson_rows(
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
                    log_p[f, g] = log_p_relabelled(value, skew_activation[f] * skewness[g], n)
                    continue
                log_p[f, g] = log_p_t(value * math.sqrt((n - 2.0) / max(1.0 - value * value, 1e-16)), n - 2.0)
