"""How does every feature go with every group of cells? From the active cells alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse, special

from sparsesc.stats.core._moments import check_groups, group_moments, group_sizes, group_sums
from sparsesc.stats.core._multiple import log_choose, log_p_normal
from sparsesc.stats.core._pearson3 import log_p_skewed
from sparsesc.stats.core._ranks import RankedColumns, rank_columns

from ._f1 import best_f1

PVALUES = ("auto", "permutation", "asymptotic")

_FEWEST_EXPECTED = 5.0


@dataclass(frozen=True)
class GroupAssociation:
    """Features x groups, float64; `n` by group."""

    n: np.ndarray
    mean_in: np.ndarray
    """Mean activation of the cells of the group, silent ones included."""
    mean_out: np.ndarray
    """Mean activation of all other cells."""
    pearson_r: np.ndarray
    auroc: np.ndarray
    f1: np.ndarray
    threshold: np.ndarray
    """Where `f1` is reached: cells above it are called."""


def _rank_sums(ranked: RankedColumns, groups: np.ndarray, n: np.ndarray) -> np.ndarray:
    return group_sums(ranked.with_data(ranked.deviation), groups, len(n)) + ranked.zero_rank[:, None] * n


def pearson_one_hot(
    codes: sparse.spmatrix | RankedColumns, groups: np.ndarray, n_groups: int | None = None
) -> np.ndarray:
    r"""Correlation of every feature with membership in every group of cells.

    Parameters
    ----------
    codes
        Cells x features, sparse (or ranked already).
    groups
        Group of each cell, ``0 ... n_groups - 1``.
    n_groups
        Number of groups; ``None``: the largest code plus one.

    Returns
    -------
    Correlations; 0 for a feature without variation, and for a group that is empty or holds all cells.

    Raises
    ------
    ValueError
        If `groups` does not fit the codes.

    See Also
    --------
    sparsesc.stats.auroc : the same question by ranks
    sparsesc.stats.correlate : correlation with numeric columns
    sparsesc.stats.group_moments : the means that it is made of

    Notes ----- With :math:`m_g` the mean in a group that holds the share :math:`\pi` of the cells, and :math:`m` and
    :math:`s` the mean and the standard deviation over all cells,

    .. math::
        r = \frac{m_g - m}{s} \sqrt{\frac{\pi}{1 - \pi}} .

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> codes = sparse.csr_matrix([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    >>> groups = np.array([0, 0, 1, 1])
    >>> ssc.stats.pearson_one_hot(codes, groups).round(2).tolist()
    [[0.9, -0.9], [-0.58, 0.58]]
    """
    matrix = codes.with_data(codes.values) if isinstance(codes, RankedColumns) else codes
    moments = group_moments(matrix, groups, n_groups)
    total, share = moments.n.sum(), moments.n / moments.n.sum()
    covariance = moments.sums / total - moments.total_mean[:, None] * share
    spread = np.sqrt(moments.total_variance[:, None] * share * (1.0 - share))
    r = np.divide(covariance, spread, out=np.zeros_like(covariance), where=spread > 0)
    return np.clip(r, -1.0, 1.0)


def auroc(codes: sparse.spmatrix | RankedColumns, groups: np.ndarray, n_groups: int | None = None) -> np.ndarray:
    r"""How well every feature ranks the cells of a group above all others (area under the ROC curve).

    Parameters
    ----------
    codes
        Cells x features, sparse (or ranked already).
    groups
        Group of each cell, ``0 ... n_groups - 1``.
    n_groups
        Number of groups; ``None``: the largest code plus one.

    Returns
    -------
    Areas: 0.5 for a feature without variation, NaN for a group that is empty or holds all cells.

    Raises
    ------
    ValueError
        If `groups` does not fit the codes.

    See Also
    --------
    sparsesc.stats.mann_whitney : the test that belongs to it
    sparsesc.stats.best_f1 : how well a threshold on the feature calls the group
    sparsesc.stats.rank_columns : rank once, for several statistics

    Notes
    -----
    With :math:`R` the sum of the ranks of the :math:`n_1` cells of the group, and :math:`n_0` other cells,

    .. math::
        \mathrm{AUROC} = \frac{U}{n_1 n_0}, \qquad U = R - \frac{n_1 (n_1 + 1)}{2} ,

    which is the share of pairs of a cell inside and a cell outside in which the one inside has the larger value. Ties
    count one half.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> codes = sparse.csr_matrix([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    >>> groups = np.array([0, 0, 1, 1])
    >>> ssc.stats.auroc(codes, groups).tolist()
    [[1.0, 0.0], [0.25, 0.75]]
    """
    ranked = rank_columns(codes)
    groups, n_groups = check_groups(groups, ranked.shape[0], n_groups)
    n = group_sizes(groups, n_groups)
    u = _rank_sums(ranked, groups, n) - n * (n + 1.0) / 2.0
    pairs = n * (n.sum() - n)
    return np.divide(u, pairs, out=np.full(u.shape, np.nan), where=np.broadcast_to(pairs > 0, u.shape))


def mann_whitney(
    codes: sparse.spmatrix | RankedColumns,
    groups: np.ndarray,
    n_groups: int | None = None,
    *,
    method: Literal["auto", "permutation", "asymptotic"] = "auto",
) -> tuple[np.ndarray, np.ndarray]:
    r"""Test whether a feature is higher or lower in a group of cells than in all others.

    Parameters
    ----------
    codes
        Cells x features, sparse (or ranked already).
    groups
        Group of each cell, ``0 ... n_groups - 1``.
    n_groups
        Number of groups; ``None``: the largest code plus one.
    method
        ``"permutation"``: p of U when cells are shuffled, from the exact mean, variance and skewness of that
        distribution. ``"asymptotic"``: normal approximation with correction for ties and continuity, as
        ``scipy.stats.mannwhitneyu(method="asymptotic")``. ``"auto"``: asymptotic where at least five active cells are
        expected both in the group and outside it, permutation elsewhere.

    Returns
    -------
    U of the group, and the natural logarithm of p (0 for a feature without variation, and for a group that is empty or
    holds all cells), both features x groups.

    Raises
    ------
    ValueError
        If `groups` does not fit the codes.

    See Also
    --------
    sparsesc.stats.auroc : the effect size that belongs to it
    sparsesc.stats.group_contrasts : the same test with ratios of means
    sparsesc.stats.benjamini_hochberg : adjust the p-values

    Notes ----- With :math:`R` the sum of the ranks of the :math:`n_1` cells of the group, :math:`n_0` other cells and
    :math:`\sigma^2` the variance of all :math:`n` ranks,

    .. math::
        U = R - \frac{n_1 (n_1 + 1)}{2}, \qquad
        z = \frac{U - n_1 n_0 / 2}{\sqrt{n_1 n_0 \sigma^2 / (n - 1)}} .

    Do not use ``"asymptotic"`` for sparse features and small groups: with few active cells expected in the group, U is
    far from normal, and among shuffled cells p < 1e-5 comes tens to hundreds of times too often. The distribution with
    the skewness of U (Pearson's type III, a shifted gamma) holds its level there; where p moves in steps, because one
    active cell more or less decides, it is kept from falling below the probability of those steps. The switch of
    ``"auto"`` is the old rule of five for tables of counts: above it the normal approximation holds its level down to
    the p-values that matter after adjustment.

    References
    ----------
    Mann and Whitney (1947), Ann Math Stat 18:50. Pitman (1937), J R Stat Soc Suppl 4:225 (moments under shuffling).

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> codes = sparse.csr_matrix([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    >>> groups = np.array([0, 0, 1, 1])
    >>> u, log_p = ssc.stats.mann_whitney(codes, groups)
    >>> u.tolist()
    [[4.0, 0.0], [1.0, 3.0]]
    """
    ranked = rank_columns(codes)
    groups, n_groups = check_groups(groups, ranked.shape[0], n_groups)
    n1 = group_sizes(groups, n_groups)
    n = float(ranked.shape[0])
    n2 = n - n1
    u = _rank_sums(ranked, groups, n1) - n1 * (n1 + 1.0) / 2.0
    excess = np.abs(u - n1 * n2 / 2.0)
    # variance of U when cells are shuffled; n1 n2 / 12 (n + 1) without ties
    spread = np.sqrt(np.outer(ranked.variance, n1 * n2) / max(n - 1.0, 1.0))
    tested = (spread > 0) & (excess > 1e-9 * n * n)
    z = np.divide(excess - 0.5, spread, out=np.zeros_like(u), where=spread > 0)
    # scipy caps p at 1 where the correction for continuity overshoots
    asymptotic = np.where((spread > 0) & (z > 0), log_p_normal(z), 0.0)
    if method == "asymptotic":
        return u, asymptotic
    z = np.divide(excess, spread, out=np.zeros_like(u), where=tested)
    log_p = np.zeros_like(u)
    if n > 2:
        share = np.clip(n1 / n, 0.5 / n, 1.0 - 0.5 / n)
        skewness = np.outer(ranked.skewness, (1.0 - 2.0 * share) / np.sqrt(share * (1.0 - share)))
        log_p = np.where(tested, log_p_skewed(z, skewness * np.sqrt(n - 1.0) / (n - 2.0)), 0.0)
    log_p = np.minimum(np.maximum(log_p, np.where(tested, _least_log_p(ranked, groups, n1), 0.0)), 0.0)
    if method == "auto":
        expected = np.outer(np.diff(ranked.indptr), np.minimum(n1, n2) / n)
        log_p = np.where(expected >= _FEWEST_EXPECTED, asymptotic, log_p)
    return u, log_p


def _least_log_p(ranked: RankedColumns, groups: np.ndarray, n1: np.ndarray) -> np.ndarray:
    """Logarithm of a part of p that no shuffling is needed for.

    It counts shufflings with as many active cells in the group as were observed, or one more (on the lower side one
    fewer), and a rank sum at least as extreme. How many there are is exact (hypergeometric); how their rank sums spread
    is taken as normal, but never below the one arrangement that was observed.
    """
    n = ranked.shape[0]
    m = np.diff(ranked.indptr)[:, None].astype(np.float64)
    active = group_sums(ranked.with_data(np.ones(len(ranked.values))), groups, len(n1))
    deviation = ranked.with_data(ranked.deviation)
    total = group_sums(deviation, groups, len(n1))  # rank sum beyond that of as many zeros
    column_sum = total.sum(axis=1, keepdims=True)
    mean = column_sum / np.maximum(m, 1.0)
    square = np.asarray(deviation.power(2).sum(axis=0)).reshape(-1, 1) / np.maximum(m, 1.0)
    variance = np.maximum(square - mean**2, 0.0)
    side = np.where(total >= column_sum * n1 / n, 1.0, -1.0)
    arrangements = log_choose(n, n1)
    log_p = np.full(total.shape, -np.inf)
    for more in (0.0, 1.0):
        count = active + side * more
        possible = (count >= 0) & (count <= np.minimum(m, n1)) & (n1 - count <= n - m)
        count = np.where(possible, count, 0.0)
        ways = log_choose(m, count) + log_choose(n - m, np.where(possible, n1 - count, 0.0))
        spread = np.sqrt(count * (m - count) / np.maximum(m - 1.0, 1.0) * variance)
        beyond = side * (total - count * mean) - 0.5  # rank sums lie a whole rank apart
        z = np.divide(beyond, spread, out=np.where(beyond > 0, np.inf, -np.inf), where=spread > 0)
        tail = special.log_ndtr(-z)
        if not more:
            tail = np.maximum(tail, -log_choose(m, count))
        log_p = np.where(possible, np.logaddexp(log_p, ways + tail - arrangements), log_p)
    return log_p


def group_association(
    codes: sparse.spmatrix | RankedColumns, groups: np.ndarray, n_groups: int | None = None
) -> GroupAssociation:
    """Effect sizes of every feature for every group: means, Pearson r, AUROC and best F1.

    Parameters
    ----------
    codes
        Cells x features, sparse (or ranked already).
    groups
        Group of each cell, ``0 ... n_groups - 1``.
    n_groups
        Number of groups; ``None``: the largest code plus one.

    Raises
    ------
    ValueError
        If `groups` does not fit the codes.
    """
    ranked = rank_columns(codes)
    groups, n_groups = check_groups(groups, ranked.shape[0], n_groups)
    moments = group_moments(ranked.with_data(ranked.values), groups, n_groups)
    f1, threshold = best_f1(ranked, groups, n_groups)
    return GroupAssociation(
        n=moments.n,
        mean_in=moments.mean,
        mean_out=moments.mean_rest,
        pearson_r=pearson_one_hot(ranked, groups, n_groups),
        auroc=auroc(ranked, groups, n_groups),
        f1=f1,
        threshold=threshold,
    )
