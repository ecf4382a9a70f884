"""How does every feature go with numeric columns? Correlations, from the active cells alone."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import sparse, special, stats

from ._pearson3 import log_p_of_r
from ._ranks import RankedColumns, rank_columns
from ._row_blocks import column_totals
from ._student import log_p_two_sided


def correlate(
    codes: sparse.spmatrix | RankedColumns,
    values: np.ndarray,
    *,
    kind: Literal["pearson", "spearman"] = "pearson",
    method: Literal["permutation", "asymptotic"] = "permutation",
) -> tuple[np.ndarray, np.ndarray]:
    r"""Correlation of every feature with every numeric column of the cells, with p-values.

    Parameters
    ----------
    codes
        Cells x features, sparse (or ranked already).
    values
        Cells x columns (or one column), dense, finite.
    kind
        ``"pearson"``, or ``"spearman"``: of ranks, ties sharing their mean rank.
    method
        ``"permutation"``: p of r when cells are shuffled, from the exact mean, variance and skewness of that
        distribution. ``"asymptotic"``: by the t distribution with n - 2 degrees of freedom.

    Returns
    -------
    r and the natural logarithm of its two-sided p, features x columns; r is 0 and log p is 0 for constants.

    Raises
    ------
    ValueError
        If `values` does not fit the codes or is not finite.

    See Also
    --------
    sparsesc.stats.pearson_one_hot : correlation with membership in groups
    sparsesc.stats.recovery : the best feature of a variable, scored on other cells
    sparsesc.stats.benjamini_hochberg : adjust the p-values

    Notes
    -----
    When the :math:`n` cells are shuffled, r has mean 0, variance and skewness

    .. math::
        \operatorname{var}(r) = \frac{1}{n - 1}, \qquad \gamma(r) = \frac{\sqrt{n - 1}}{n - 2}\, g h ,

    with :math:`g` and :math:`h` the population skewness of the feature and of the column. P-values by permutation are
    those of the gamma distribution with these moments.

    Cells of one sample are not independent; neither p-value knows that.

    References
    ----------
    Pitman (1937), J R Stat Soc Suppl 4:225 (moments under shuffling).

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> codes = sparse.csr_matrix([[1.0], [2.0], [0.0], [0.0], [3.0]])
    >>> r, log_p = ssc.stats.correlate(codes, np.array([11.0, 12.0, 10.0, 10.0, 13.0]))
    >>> r.round(6).tolist()
    [[1.0]]
    """
    ranked = rank_columns(codes)
    n = ranked.shape[0]
    values = np.asarray(values, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) != n or not np.isfinite(values).all():
        msg = f"values must be finite numbers for each of {n} cells, found shape {values.shape}."
        raise ValueError(msg)
    if kind == "spearman":
        data, variance, skewness = ranked.deviation, ranked.variance, ranked.skewness
        values = stats.rankdata(values, axis=0)
    else:
        totals = column_totals(ranked.with_data(ranked.values))
        data, variance, skewness = ranked.values, totals.variance, totals.skewness
    centered = values - values.mean(axis=0)
    deviation = centered.std(axis=0)
    deviation[deviation <= 1e-12 * np.abs(values).max(axis=0, initial=0.0)] = 0.0  # a constant, up to rounding
    spread = np.outer(np.sqrt(variance), deviation)
    products = ranked.with_data(data.astype(np.float64, copy=False)).T @ centered
    r = np.divide(products / n, spread, out=np.zeros_like(spread), where=spread > 0)
    r = np.clip(r, -1.0, 1.0)
    if n < 3:
        return r, np.zeros_like(r)
    if method == "asymptotic":
        rest = np.maximum((1.0 - r) * (1.0 + r), 1e-32)
        return r, log_p_two_sided(r * np.sqrt((n - 2.0) / rest), n - 2.0)
    third = np.divide((centered**3).mean(axis=0), deviation**3, out=np.zeros_like(deviation), where=deviation > 0)
    log_p = log_p_of_r(r, np.outer(skewness, third), n)
    # shufflings that exchange only silent cells leave r as it is
    least = special.gammaln(n - np.diff(ranked.indptr) + 1.0) - special.gammaln(n + 1.0)
    return r, np.minimum(np.maximum(log_p, least[:, None]), 0.0)
