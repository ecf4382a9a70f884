"""In which cells is a feature on, whatever they are called; and does it follow the depth of cells?"""

from __future__ import annotations

import numpy as np
from scipy import sparse


def on_thresholds(codes: sparse.spmatrix) -> np.ndarray:
    r"""Activation above which each feature counts as on, (features,); 0 for a feature that is active in no cell.

    Half of :math:`\sum_i a_i^2 / \sum_i a_i`, the mean activation of a unit of activation: many cells with a trace of
    the feature hardly move it, and neither does one cell with an extreme value. No label has a say in it. Cells of
    equal activation are all on.

    Parameters
    ----------
    codes
        Cells x features, non-negative.
    """
    codes = sparse.csr_matrix(codes)
    values = codes.data.astype(np.float64)
    n_features = codes.shape[1]
    total = np.bincount(codes.indices, weights=values, minlength=n_features)
    squares = np.bincount(codes.indices, weights=values * values, minlength=n_features)
    return 0.5 * np.divide(squares, total, out=np.zeros(n_features), where=total > 0)


def on_cells(codes: sparse.spmatrix, thresholds: np.ndarray) -> sparse.csr_matrix:
    """Cells x features, 1 where a feature is on (activation above its threshold), float32, nothing else stored."""
    on = sparse.csr_matrix(codes, dtype=np.float32, copy=True)
    on.data = (on.data > np.asarray(thresholds, dtype=np.float64)[on.indices]).astype(np.float32)
    on.eliminate_zeros()
    return on


def columnwise_r(codes: sparse.spmatrix, values: np.ndarray) -> np.ndarray:
    """Pearson's correlation of every column with a number of each cell; NaN for constant columns and numbers.

    Cells whose number is not finite are left out.
    """
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    codes, values = sparse.csr_matrix(codes)[known], values[known]
    n = len(values)
    out = np.full(codes.shape[1], np.nan)
    if n < 3:
        return out
    data = codes.data.astype(np.float64)
    centered = values - values.mean()
    rows = np.repeat(np.arange(n), np.diff(codes.indptr))
    cross = np.bincount(codes.indices, weights=data * centered[rows], minlength=codes.shape[1])
    total = np.bincount(codes.indices, weights=data, minlength=codes.shape[1])
    squares = np.bincount(codes.indices, weights=data * data, minlength=codes.shape[1])
    spread = np.sqrt(np.maximum(squares - total**2 / n, 0.0) * (centered @ centered))
    return np.divide(cross, spread, out=out, where=spread > 1e-12 * np.maximum(squares, 1e-300) ** 0.5)
