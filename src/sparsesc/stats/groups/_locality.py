"""In which groups of cells is a feature stronger than elsewhere, and is it spread evenly?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse, special

from sparsesc.stats.core._moments import group_moments
from sparsesc.stats.core._ranks import RankedColumns, rank_columns

from ._association import mann_whitney

LOCAL, REGIONAL, GLOBAL, UNCLEAR = "local", "regional", "global", "unclear"


@dataclass(frozen=True)
class GroupContrasts:
    """Means, tests and fold changes of every feature in every group.

    Arrays are features x groups, float64; `n` is by group.

    See Also
    --------
    sparsesc.stats.group_contrasts : work these out
    sparsesc.stats.benjamini_hochberg : adjust the p-values

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat([0, 1], 50)
    >>> codes = sparse.csr_matrix(rng.poisson(np.column_stack([1.0 + 3.0 * groups, np.ones(100)])))
    >>> contrasts = ssc.stats.group_contrasts(codes, groups)
    >>> contrasts.raised(np.exp(contrasts.log_p), alpha=0.01, fold=2.0).tolist()
    [[False, True], [False, False]]
    """

    n: np.ndarray
    mean_in: np.ndarray
    mean_out: np.ndarray
    statistic: np.ndarray
    """U of the Mann-Whitney test, less its mean and over its standard deviation when cells are shuffled."""
    log_p: np.ndarray
    log_ratio: np.ndarray
    """Logarithm of mean_in / mean_out; -inf and inf where one of them is 0, NaN where both are."""
    se_log_ratio: np.ndarray
    """Its standard error (delta method); inf where it is not known."""

    def raised(self, padj: np.ndarray, *, alpha: float, fold: float) -> np.ndarray:
        """Groups in which a feature is stronger: significant, and by at least `fold`."""
        return (padj < alpha) & (self.log_ratio >= np.log(fold))

    def fold_limits(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """One-sided limits of mean_in / mean_out, each at level `alpha`; 0 and inf where nothing is known."""
        reach = -special.ndtri(alpha) * self.se_log_ratio
        known = np.isfinite(reach)
        center, reach = np.where(known, self.log_ratio, 0.0), np.where(known, reach, np.inf)
        return np.exp(center - reach), np.where(known, np.exp(np.minimum(center + reach, 700.0)), np.inf)


def group_contrasts(
    codes: sparse.spmatrix | RankedColumns, groups: np.ndarray, n_groups: int | None = None
) -> GroupContrasts:
    r"""Compare every feature in each group with all other cells: a test, and the ratio of means with its error.

    Parameters
    ----------
    codes
        Cells x features, sparse, non-negative (or ranked already).
    groups
        Group of each cell, ``0 ... n_groups - 1``.
    n_groups
        Number of groups; ``None``: the largest code plus one.

    Returns
    -------
    Means, the test of :func:`mann_whitney` (two-sided, ``method="auto"``), and the ratio of the means.

    Raises
    ------
    ValueError
        If `groups` does not fit the codes.

    See Also
    --------
    sparsesc.stats.mann_whitney : the test alone
    sparsesc.stats.group_moments : the means alone
    sparsesc.tl.feature_locality : the same for an AnnData, and which features are local

    Notes ----- The ratio of the mean :math:`m_1` of the :math:`n_1` cells of a group to the mean :math:`m_0` of the
    :math:`n_0` others is compared on the scale of logarithms, where its standard error (delta method) is

    .. math::
        \operatorname{se}\left(\log \frac{m_1}{m_0}\right)
        = \sqrt{\frac{s_1^2}{n_1 m_1^2} + \frac{s_0^2}{n_0 m_0^2}} .

    Cells of one sample are not independent; p-values do not know that.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat([0, 1], 50)
    >>> codes = sparse.csr_matrix(rng.poisson(np.column_stack([1.0 + 3.0 * groups, np.ones(100)])))
    >>> contrasts = ssc.stats.group_contrasts(codes, groups)
    >>> (contrasts.log_p < np.log(0.001)).tolist()
    [[True, True], [False, False]]
    """
    ranked = rank_columns(codes)
    moments = group_moments(ranked.with_data(ranked.values), groups, n_groups)
    n1, n = moments.n, moments.n.sum()
    rest = n - n1
    u, log_p = mann_whitney(ranked, groups, n_groups)
    spread = np.sqrt(np.outer(ranked.variance, n1 * rest) / max(n - 1.0, 1.0))
    inside, outside = moments.mean, moments.mean_rest
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = np.log(inside) - np.log(outside)
        squares = moments.squares.sum(axis=1, keepdims=True) - moments.squares
        variance_out = np.maximum(squares / rest - outside**2, 0.0) / np.maximum(rest - 1.0, 0.0)
        se = np.sqrt(moments.variance / n1 / inside**2 + variance_out / outside**2)
    return GroupContrasts(
        n=n1,
        mean_in=inside,
        mean_out=outside,
        statistic=np.divide(u - n1 * rest / 2.0, spread, out=np.zeros_like(u), where=spread > 0),
        log_p=log_p,
        log_ratio=log_ratio,
        se_log_ratio=np.where(np.isfinite(se) & np.isfinite(log_ratio), se, np.inf),
    )


def classify(contrasts: GroupContrasts, padj: np.ndarray, *, alpha: float, fold: float, min_cells: int) -> np.ndarray:
    """One word for each feature, by the groups that it is stronger in.

    Parameters
    ----------
    contrasts
        Tests of all features and groups.
    padj
        Adjusted p-values of those tests.
    alpha
        Level.
    fold
        Ratio of means from which a difference counts.
    min_cells
        Smaller groups need not be shown to be like the others for ``"global"``.

    Returns
    -------
    ``"local"``: stronger in exactly one group (`padj` below `alpha`, mean at least `fold` times that elsewhere);
    ``"regional"``: in several, or in none but weaker by `fold` in some; ``"global"``: neither, and in every group shown
    to be within `fold` of the mean elsewhere (two one-sided tests at level `alpha`); ``"unclear"``: none of these is
    shown; ``""``: silent.

    References
    ----------
    Schuirmann (1987), J Pharmacokinet Biopharm 15:657 (two one-sided tests). Berger (1982), Technometrics 24:295 (all
    of several tests at level `alpha` need no correction).
    """
    limit = np.log(fold)
    raised = contrasts.raised(padj, alpha=alpha, fold=fold).sum(axis=1)
    lowered = ((padj < alpha) & (contrasts.log_ratio <= -limit)).any(axis=1)
    low, high = contrasts.fold_limits(alpha)
    even = ((low > 1.0 / fold) & (high < fold)) | (contrasts.n < min_cells)
    words = np.full(len(raised), UNCLEAR, dtype=object)
    words[even.all(axis=1) & (raised == 0) & ~lowered] = GLOBAL
    words[(raised == 0) & lowered] = REGIONAL
    words[raised > 1] = REGIONAL
    words[raised == 1] = LOCAL
    words[(contrasts.mean_in * contrasts.n).sum(axis=1) == 0] = ""
    return words


def breadth(mean: np.ndarray) -> np.ndarray:
    """How many groups a feature is spread over: the exponential of the entropy of its group means.

    Parameters
    ----------
    mean
        Features x groups, not negative.

    Returns
    -------
    From 1 (one group) to the number of groups (the same mean in all); 0 for silent features.

    References
    ----------
    Hill (1973), Ecology 54:427.
    """
    mean = np.nan_to_num(mean)
    total = mean.sum(axis=1, keepdims=True)
    share = np.divide(mean, total, out=np.zeros_like(mean), where=total > 0)
    return np.where(total[:, 0] > 0, np.exp(special.entr(share).sum(axis=1)), 0.0)
