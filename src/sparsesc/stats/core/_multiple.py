"""Which of many tests count? Adjusted p-values, and logarithms of p-values too small for ``1 - cdf``."""

from __future__ import annotations

import numpy as np
from scipy import special, stats


def benjamini_hochberg(pvalues: np.ndarray) -> np.ndarray:
    r"""Adjust p-values for many tests, so that the false discovery rate is under control.

    Parameters
    ----------
    pvalues
        P-values of any shape; all entries count as one family. NaN (no test was made) is not counted.

    Returns
    -------
    Adjusted p-values of the same shape, float64; NaN stays NaN.

    Raises
    ------
    ValueError
        If a p-value lies outside 0 to 1.

    See Also
    --------
    sparsesc.stats.mann_whitney : p-values of every feature and group
    sparsesc.stats.overlap_test : p-values of pairs of features

    Notes
    -----
    Of :math:`m` p-values in ascending order, the adjusted ones are

    .. math::
        q_{(i)} = \min_{j \ge i} \min\left(\frac{m}{j}\, p_{(j)},\, 1\right) .

    Holds for independent tests and for positively dependent ones. It is not meant for p-values that were selected
    before: adjust all tests, then select.

    References
    ----------
    Benjamini and Hochberg (1995), J R Stat Soc B 57:289.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> ssc.stats.benjamini_hochberg([0.01, 0.02, 0.03, 0.5]).round(3).tolist()
    [0.04, 0.04, 0.04, 0.5]
    """
    pvalues = np.asarray(pvalues, dtype=np.float64)
    tested = ~np.isnan(pvalues)
    p = pvalues[tested]
    if p.size and not (p.min() >= 0 and p.max() <= 1):
        msg = f"P-values must lie between 0 and 1, found {p.min():g} to {p.max():g}."
        raise ValueError(msg)
    out = np.full(pvalues.shape, np.nan)
    out[tested] = stats.false_discovery_control(p)
    return out


def log_p_normal(z: np.ndarray) -> np.ndarray:
    """Natural logarithm of the two-sided p-value of normal deviates."""
    return np.minimum(np.log(2.0) + special.log_ndtr(-np.abs(z)), 0.0)


def log_choose(n: np.ndarray | float, k: np.ndarray | float) -> np.ndarray:
    """Natural logarithm of the number of ways to choose `k` of `n`."""
    return special.gammaln(np.add(n, 1.0)) - special.gammaln(np.add(k, 1.0)) - special.gammaln(np.subtract(n, k) + 1.0)
