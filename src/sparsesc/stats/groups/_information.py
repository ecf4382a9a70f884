"""What do features tell about groups of rows? Mutual information within strata, each row judged by all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled
from sparsesc.stats.core._holdout import members
from sparsesc.stats.core._moments import check_groups
from sparsesc.stats.core._ranks import RankedColumns, rank_columns
from sparsesc.stats.core._shuffle import shuffled_within

from ._disentanglement import BinnedColumns

type Levels = sparse.spmatrix | sparse.sparray | RankedColumns | BinnedColumns

_PRIOR = 1.0  # rows with the shares of the whole stratum that are added to each level of it
_ROUNDING = 1e-12


@dataclass(frozen=True)
class InformationTest:
    """What features tell about groups, and whether that is more than chance: one value a feature, in nats.

    See Also
    --------
    sparsesc.stats.information_test : run the test

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat([0, 1], 50)
    >>> codes = sparse.csr_matrix(rng.poisson(np.column_stack([1.0 + 3.0 * groups, np.ones(100)])))
    >>> test = ssc.stats.information_test(codes, groups, rng=rng)
    >>> bool(test.information[0] < test.entropy)
    True
    """

    information: np.ndarray
    """Held-out mutual information less its mean under shuffled groups: 0 on average for independent features."""
    null_sd: np.ndarray
    """Standard deviation under shuffled groups."""
    pval: np.ndarray
    """One-sided p-value of the permutation test; NaN for features that were not tested."""
    padj: np.ndarray
    """Adjusted for all features that were tested, by the largest deviation in each permutation."""
    entropy: float
    """Of the groups within the strata: the most that a feature could know."""


def cut_levels(codes: sparse.spmatrix | sparse.sparray | RankedColumns, n_levels: int = 3) -> BinnedColumns:
    """Cut non-negative columns into level 0, the silent rows, and `n_levels` of the same number of active rows.

    Unlike bins of equal width, these do not depend on the largest value. Equal values share a level.

    Raises
    ------
    ValueError
        If there is a negative value.
    """
    ranked = rank_columns(codes)
    if ranked.values.min(initial=0.0) < 0:
        msg = f"Activations must not be negative, found {ranked.values.min():g}."
        raise ValueError(msg)
    bins = np.zeros(len(ranked.values), np.int16)
    _cut(ranked.indptr, ranked.values, n_levels, bins)
    zero_bin = np.where(np.diff(ranked.indptr) > 0, 0, -1).astype(np.int16)
    return BinnedColumns(ranked.shape, ranked.indptr, ranked.rows, bins, zero_bin, n_levels + 1)


@compiled
def _cut(indptr: np.ndarray, values: np.ndarray, n_levels: int, bins: np.ndarray) -> None:
    for f in range(len(indptr) - 1):
        start, stop = indptr[f], indptr[f + 1]
        level = n_levels
        for i in range(start, stop):  # descending, so the level only falls
            if i > start and values[i] < values[i - 1]:
                level = n_levels - ((i - start) * n_levels) // (stop - start)
            bins[i] = level


@compiled
def _information(
    indptr: np.ndarray,
    rows: np.ndarray,
    bins: np.ndarray,
    n_bins: int,
    place: np.ndarray,
    sizes: np.ndarray,
    left_out: float,
    prior: float,
    out: np.ndarray,
) -> None:
    """Mean over rows of log p(group | level, stratum) / p(group | stratum).

    `place` is stratum times number of groups plus group; `sizes`, strata x groups, counts them. Shares are those among
    all rows but the one that is judged (`left_out` is 1), which depends on nothing but the counts: no row is visited
    twice.
    """
    n_strata, n_groups = sizes.shape
    joint = np.zeros((n_bins, n_strata, n_groups), np.int64)
    total = sizes.sum(axis=1)
    for f in range(len(indptr) - 1):
        joint[:] = 0
        joint[0] = sizes
        for i in range(indptr[f], indptr[f + 1]):
            s, g = divmod(place[rows[i]], n_groups)
            joint[0, s, g] -= 1
            joint[bins[i], s, g] += 1
        score = 0.0
        for b in range(n_bins):
            for s in range(n_strata):
                level = 0
                for g in range(n_groups):
                    level += joint[b, s, g]
                if level == 0 or total[s] < 2:
                    continue
                expected = np.log(level - left_out + prior)
                for g in range(n_groups):
                    c = joint[b, s, g]
                    if c == 0:
                        continue
                    share = (sizes[s, g] - left_out) / (total[s] - left_out)
                    # the only row of its group in the stratum: nothing but the prior expects it
                    observed = (c - left_out) / share + prior if share > 0.0 else prior
                    score += c * (np.log(observed) - expected)
        out[f] = score / len(place)


class _Judge:
    """Information about groups of one way to group the rows, ready to be repeated with shuffled groups."""

    def __init__(self, codes: Levels, groups: np.ndarray, strata: np.ndarray | None, n_levels: int) -> None:
        self.levels = codes if isinstance(codes, BinnedColumns) else cut_levels(codes, n_levels)
        n = self.levels.shape[0]
        self.groups, self._n_groups = check_groups(groups, n)
        self.strata, n_strata = check_groups(np.zeros(n, np.int64) if strata is None else strata, n)
        place = self.strata * self._n_groups + self.groups
        self.sizes = np.bincount(place, minlength=n_strata * self._n_groups).reshape(n_strata, self._n_groups)

    def scores(self, groups: np.ndarray, *, held_out: bool) -> np.ndarray:
        """Information of each feature; `groups` must have the sizes of the first ones in every stratum."""
        out = np.zeros(self.levels.shape[1])
        held = (1.0, _PRIOR) if held_out else (0.0, 0.0)
        place = self.strata * self._n_groups + groups
        parts = (self.levels.indptr, self.levels.rows, self.levels.bins, self.levels.n_bins)
        _information(*parts, place, self.sizes, *held, out)
        return out

    @property
    def entropy(self) -> float:
        """Of the groups within strata, in nats."""
        total = self.sizes.sum(axis=1, keepdims=True)
        share = np.divide(self.sizes, total, out=np.zeros(self.sizes.shape), where=total > 0)
        return float(-(self.sizes * np.log(np.where(share > 0, share, 1.0))).sum() / max(len(self.groups), 1))


def mutual_information(
    codes: Levels,
    groups: np.ndarray,
    *,
    strata: np.ndarray | None = None,
    n_levels: int = 3,
    held_out: bool = True,
) -> np.ndarray:
    """How much every feature tells about the group of a cell, within strata such as batches.

    Features are cut into silent and `n_levels` of active rows; nothing becomes dense.

    Parameters
    ----------
    codes
        Rows x features, sparse and not negative (or ranked already).
    groups
        Group of each row, ``0 ... n_groups - 1``.
    strata
        Stratum of each row, likewise: the question is then how much a feature says about the group if the stratum is
        known. ``None``: all rows are one.
    n_levels
        Levels of the active rows, each with as many of them.
    held_out
        Judge every row by the shares among all others. Otherwise this is the plug-in estimate, which is above 0 for
        independent features.

    Returns
    -------
    One value a feature, in nats. Held-out values may be negative: what a feature seems to say misleads on other rows.

    Raises
    ------
    ValueError
        If a value is negative, or groups or strata do not fit the codes.

    See Also
    --------
    sparsesc.stats.information_test : the same with a test against shuffled groups
    sparsesc.stats.smi : information about one group at a time

    Notes
    -----
    The held-out value is the mean over rows of ``log q(group | level, stratum) / q(group | stratum)`` with shares q
    among all rows but that one (and one row that has the shares of its stratum added to each level, so that no
    share is 0). On average it is not above the true information, and below it by what is lost in guessing shares from
    few rows. Many groups and strata need many rows: compare with shuffled groups, :func:`information_test`.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> codes = sparse.csr_matrix([[2.0], [2.0], [0.0], [0.0]])
    >>> groups = np.array([0, 0, 1, 1])
    >>> ssc.stats.mutual_information(codes, groups, held_out=False).round(2).tolist()
    [0.69]
    """
    judge = _Judge(codes, groups, strata, n_levels)
    return judge.scores(judge.groups, held_out=held_out)


def information_test(
    codes: Levels,
    groups: np.ndarray,
    *,
    strata: np.ndarray | None = None,
    n_levels: int = 3,
    n_permutations: int = 200,
    min_active: int = 10,
    rng: np.random.Generator,
) -> InformationTest:
    r"""Test whether features tell anything about groups, against groups shuffled within strata.

    Parameters
    ----------
    codes
        Rows x features, sparse and not negative (or ranked already).
    groups
        Group of each row, ``0 ... n_groups - 1``.
    strata
        Stratum of each row, likewise; ``None``: all rows are one.
    n_levels
        Levels of the active rows.
    n_permutations
        How often groups are shuffled; the smallest p is ``1 / (n_permutations + 1)``.
    min_active
        Features that are active in fewer rows are not tested, and do not count for adjustment.
    rng
        Shuffles.

    Returns
    -------
    Information less its mean under shuffled groups, p-values by feature, and p-values that hold for all features
    together.

    Raises
    ------
    ValueError
        If a value is negative, or groups or strata do not fit the codes.

    See Also
    --------
    sparsesc.stats.mutual_information : the information alone
    sparsesc.stats.benjamini_hochberg : false discovery rates instead
    sparsesc.tl.suppress_features : uses it to choose features of batches

    Notes
    -----
    Of :math:`B` permutations in which :math:`b` reach the observed information,

    .. math::
        p = \frac{b + 1}{B + 1} .

    All features meet the same shuffled groups, so `padj` allows for their dependence: it is the share of permutations
    in which the largest standardized value of any feature reaches that of this one (family-wise error, not false
    discoveries), and small values do not take thousands of permutations.

    Rows must be exchangeable within strata. Cells of a donor are not independent of each other: a small p says that
    these cells differ, not that other donors would.

    References
    ----------
    Westfall and Young (1993), Resampling-Based Multiple Testing. Phipson and Smyth (2010), Stat Appl Genet Mol Biol
    9:39 (p-values of permutations are never 0).

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat([0, 1], 50)
    >>> codes = sparse.csr_matrix(rng.poisson(np.column_stack([1.0 + 3.0 * groups, np.ones(100)])))
    >>> test = ssc.stats.information_test(codes, groups, rng=rng)
    >>> (test.padj < 0.05).tolist()
    [True, False]
    """
    judge = _Judge(codes, groups, strata, n_levels)
    parts = members(judge.strata)
    scores = np.empty((n_permutations + 1, judge.levels.shape[1]))
    scores[0] = judge.scores(judge.groups, held_out=True)
    for i in range(n_permutations):
        scores[i + 1] = judge.scores(shuffled_within(judge.groups, parts, rng), held_out=True)
    null = scores[1:]
    null_mean = null.mean(axis=0)
    tested = np.diff(judge.levels.indptr) >= min_active
    pval, padj = np.full((2, len(tested)), np.nan)
    pval[tested] = (scores >= scores[0] - _ROUNDING)[:, tested].mean(axis=0)
    # the observed row is one of all, as it would be if it were shuffled, too
    centered = scores[:, tested] - scores[:, tested].mean(axis=0)
    spread = centered.std(axis=0)
    deviation = np.divide(centered, spread, out=np.zeros(centered.shape), where=spread > _ROUNDING)
    largest = np.sort(deviation.max(axis=1, initial=-np.inf))
    reached = len(largest) - np.searchsorted(largest, deviation[0] - 1e-9)
    padj[tested] = np.maximum(reached / len(largest), pval[tested])
    return InformationTest(scores[0] - null_mean, null.std(axis=0), pval, padj, judge.entropy)
