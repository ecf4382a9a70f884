"""Do the columns of two arrays go together, each with the one in the same place?"""

from __future__ import annotations

import numpy as np

from sparsesc.stats.core._pearson3 import log_p_of_r


def columnwise_pearson(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of every column of one array with the same column of another.

    Parameters
    ----------
    a, b
        Cells x columns, dense, finite.

    Returns
    -------
    Pearson's r and the natural logarithm of its two-sided p when cells are shuffled (from the exact mean, variance and
    skewness of that distribution), one a column; r is 0 and log p is 0 for constants.

    Raises
    ------
    ValueError
        If the arrays differ in shape.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (a, b))
    if a.shape != b.shape or a.ndim != 2:
        msg = f"Both must be cells x columns of the same shape, found {a.shape} and {b.shape}."
        raise ValueError(msg)
    (za, skew_a), (zb, skew_b) = _standardized(a), _standardized(b)
    r = np.clip((za * zb).mean(axis=0), -1.0, 1.0)
    return r, log_p_of_r(r, skew_a * skew_b, len(a))


def _standardized(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns of mean 0 and variance 1 (a constant, up to rounding: 0), and their skewness."""
    centered = values - values.mean(axis=0)
    spread = centered.std(axis=0)
    spread[spread <= 1e-12 * np.abs(values).max(axis=0, initial=0.0)] = np.inf
    z = centered / spread
    return z, (z**3).mean(axis=0)
