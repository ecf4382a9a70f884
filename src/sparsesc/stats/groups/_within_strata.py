"""Do features go with groups, or numbers, among cells of the same stratum? Ranks and shufflings within strata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse, special, stats

from sparsesc._compiled import compiled
from sparsesc.stats.core._holdout import members
from sparsesc.stats.core._moments import group_sizes, group_sums
from sparsesc.stats.core._multiple import log_choose, log_p_normal
from sparsesc.stats.core._pearson3 import log_p_skewed
from sparsesc.stats.core._ranks import RankedColumns, rank_columns
from sparsesc.stats.core._row_blocks import column_totals
from sparsesc.stats.core._student import log_p_two_sided

_MOST_COUNTED = 60  # active cells in a group from which its count is not looked at on its own


@dataclass(frozen=True)
class GroupsWithin:
    """Features x groups; NaN for a group that is alone in each of its strata."""

    auroc: np.ndarray
    pearson_r: np.ndarray
    log_p: np.ndarray
    """By permutation within strata."""
    log_p_asymptotic: np.ndarray
    """By the normal distribution: van Elteren's test."""
    n_strata: np.ndarray
    """Strata with cells inside and outside, by group."""
    n_compared: np.ndarray
    """Cells of the group in these strata, by group."""


@dataclass(frozen=True)
class NumbersWithin:
    """One entry a feature; NaN where the number is constant within each stratum."""

    r: np.ndarray
    log_p: np.ndarray
    log_p_asymptotic: np.ndarray
    n_strata: int
    """Strata in which the number varies."""


def groups_within(
    codes: sparse.spmatrix,
    groups: np.ndarray,
    strata: np.ndarray,
    n_groups: int | None = None,
    *,
    test: bool = True,
) -> GroupsWithin:
    r"""Test whether a feature is higher or lower in a group than in other cells of the same stratum.

    Parameters
    ----------
    codes
        Cells x features, sparse.
    groups, strata
        Group and stratum of each cell, whole numbers from 0.
    n_groups
        Number of groups; ``None``: the largest code plus one.
    test
        Whether p-values are wanted; without, logarithms of p are 0.

    Returns
    -------
    Effects and p-values. Strata in which all cells, or none, are of the group contribute nothing to it.

    Notes
    -----
    In stratum :math:`s` of :math:`n_s` cells, of which :math:`n_{1s}` are in the group and :math:`n_{0s}` are not, the
    group has the statistic :math:`U_s`. Strata are weighted as by van Elteren, which is best for a shift that is the
    same in all of them:

    .. math::
        T = \sum_s \frac{U_s - n_{1s} n_{0s} / 2}{n_s + 1}, \qquad
        \mathrm{AUROC} = \frac{1}{2} + T \Big/ \sum_s \frac{n_{1s} n_{0s}}{n_s + 1} .

    When cells are shuffled within strata, T has mean 0, and its variance and third moment are the sums of those of the
    strata, which are known exactly. P is that of the gamma distribution with these moments, and, as in
    :func:`sparsesc.stats.mann_whitney`, not below the probability of the steps in which it moves: that as many active
    cells come to lie in the group as were observed (and the ranks are as extreme), or one more. With one stratum both
    tests agree.

    The Pearson correlation is that of what is left when each stratum's means are taken off.

    References
    ----------
    van Elteren (1960), Bull Int Stat Inst 37:351. Pitman (1937), J R Stat Soc Suppl 4:225.
    """
    n_groups = int(groups.max(initial=-1)) + 1 if n_groups is None else n_groups
    shape = (codes.shape[1], n_groups)
    total, pairs, variance, third = np.zeros(shape), np.zeros(n_groups), np.zeros(shape), np.zeros(shape)
    product, ss_x, ss_g = np.zeros(shape), np.zeros(shape), np.zeros(n_groups)
    compared = np.zeros((2, n_groups))
    steps = _Steps(shape)
    for part in parts_within(codes, groups, strata, n_groups):
        total += part.excess * part.weight
        pairs += part.pairs * part.weight
        product += part.product
        ss_x += np.outer(part.ss_x, part.pairs > 0)
        ss_g += part.pairs / part.n
        compared += np.where(part.pairs > 0, (np.ones(n_groups), part.n1), 0.0)
        if test:
            variance += part.variance * part.weight**2
            third += part.third * part.weight**3
            steps.add(part)
    nothing = np.broadcast_to(pairs == 0, shape)
    spread = np.sqrt(variance)
    tested = (spread > 0) & (np.abs(total) > 1e-8 * spread)
    z = np.divide(total, spread, out=np.zeros(shape), where=tested)
    skewness = np.divide(third, spread**3, out=np.zeros(shape), where=tested)
    log_p = np.where(tested, log_p_skewed(z, skewness), 0.0)
    log_p = np.minimum(np.maximum(log_p, np.where(tested, steps.log_p(total), 0.0)), 0.0)
    scale = np.sqrt(ss_x * ss_g)
    r = np.clip(np.divide(product, scale, out=np.zeros(shape), where=scale > 0), -1.0, 1.0)
    columns = (0.5 + total / np.where(pairs > 0, pairs, 1.0), r, log_p, np.where(tested, log_p_normal(z), 0.0))
    return GroupsWithin(*(np.where(nothing, np.nan, c) for c in columns), *compared.astype(np.int64))


def numbers_within(
    codes: sparse.spmatrix,
    values: np.ndarray,
    strata: np.ndarray,
    *,
    kind: Literal["pearson", "spearman"] = "pearson",
) -> NumbersWithin:
    r"""Correlation of every feature with a number among cells of the same stratum.

    Parameters
    ----------
    codes
        Cells x features, sparse.
    values
        One finite number for each cell.
    strata
        Stratum of each cell, whole numbers from 0.
    kind
        ``"pearson"``: each stratum's means are taken off. ``"spearman"``: values are ranked within strata and divided
        by :math:`n_s + 1` before.

    Returns
    -------
    r with p-values. Those by permutation are of the gamma distribution with the mean, variance and third moment that r
    has when cells are shuffled within strata.
    """
    n_features = codes.shape[1]
    product, ss_x, ss_y = np.zeros(n_features), np.zeros(n_features), 0.0
    variance, third, least = np.zeros(n_features), np.zeros(n_features), np.zeros(n_features)
    n_cells = n_strata = 0
    matrix = sparse.csr_matrix(codes)
    for rows in members(strata):
        y, n = values[rows], len(rows)
        if np.ptp(y) <= 1e-12 * np.abs(y).max():  # a constant, up to rounding
            continue
        ranked = rank_columns(matrix[rows])
        if kind == "spearman":
            y, data, scale = stats.rankdata(y) / (n + 1), ranked.deviation / (n + 1), 1.0 / (n + 1)
            spread, skewness = ranked.variance * scale**2, ranked.skewness
        else:
            data = ranked.values.astype(np.float64)
            totals = column_totals(ranked.with_data(data))
            spread, skewness = totals.variance, totals.skewness
        y = y - y.mean()
        product += ranked.with_data(data).T @ y
        ss_x += n * spread
        ss_y += (y**2).sum()
        variance += n * spread * (y**2).sum() / (n - 1)
        if n > 2:
            third += n**2 * skewness * spread**1.5 * (y**3).sum() / ((n - 1) * (n - 2))
        # shufflings that exchange only silent cells leave r as it is
        least += special.gammaln(n - np.diff(ranked.indptr) + 1.0) - special.gammaln(n + 1.0)
        n_cells, n_strata = n_cells + n, n_strata + 1
    if not n_strata:
        nothing = np.full(n_features, np.nan)
        return NumbersWithin(nothing, nothing, nothing, 0)
    both = np.sqrt(ss_x * ss_y)
    r = np.clip(np.divide(product, both, out=np.zeros(n_features), where=both > 0), -1.0, 1.0)
    tested = (variance > 0) & (np.abs(r) > 1e-10)
    z = np.divide(product, np.sqrt(variance), out=np.zeros(n_features), where=tested)
    gamma = np.divide(third, variance**1.5, out=np.zeros(n_features), where=tested)
    log_p = np.where(tested, np.minimum(np.maximum(log_p_skewed(z, gamma), least), 0.0), 0.0)
    df = n_cells - n_strata - 1.0
    usual = np.zeros(n_features)
    if df >= 1:
        usual = log_p_two_sided(r * np.sqrt(df / np.maximum((1.0 - r) * (1.0 + r), 1e-32)), df)
    return NumbersWithin(r, log_p, usual, n_strata)


# -- one stratum ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What one stratum says, features x groups."""

    ranked: RankedColumns
    groups: np.ndarray
    n1: np.ndarray
    excess: np.ndarray
    """U less its mean."""

    @property
    def n(self) -> int:
        """Cells of the stratum."""
        return self.ranked.shape[0]

    @property
    def weight(self) -> float:
        """That of van Elteren."""
        return 1.0 / (self.n + 1.0)

    @property
    def pairs(self) -> np.ndarray:
        """Pairs of a cell inside and a cell outside, by group."""
        return self.n1 * (self.n - self.n1)

    @property
    def variance(self) -> np.ndarray:
        """Variance of U when the cells of the stratum are shuffled."""
        return np.outer(self.ranked.variance, self.pairs) / max(self.n - 1.0, 1.0)

    @property
    def third(self) -> np.ndarray:
        """Third central moment of U when the cells of the stratum are shuffled."""
        if self.n < 3:  # two values are symmetric
            return np.zeros(self.excess.shape)
        ranks = self.ranked.skewness * self.ranked.variance**1.5
        indicator = self.pairs * (1.0 - 2.0 * self.n1 / self.n) * self.n
        return np.outer(ranks, indicator) / ((self.n - 1.0) * (self.n - 2.0))

    @property
    def product(self) -> np.ndarray:
        """Sum of products of activation and membership, both less their means."""
        sums = group_sums(self.ranked.with_data(self.ranked.values.astype(np.float64)), self.groups, len(self.n1))
        return sums - np.outer(sums.sum(axis=1), self.n1 / self.n)

    @property
    def ss_x(self) -> np.ndarray:
        """Sum of squares of activations less their mean, by feature."""
        return self.n * column_totals(self.ranked.with_data(self.ranked.values.astype(np.float64))).variance


def parts_within(codes: sparse.spmatrix, groups: np.ndarray, strata: np.ndarray, n_groups: int) -> Iterator[Part]:
    """Each stratum with at least two groups."""
    matrix = sparse.csr_matrix(codes)
    for rows in members(strata):
        here = groups[rows]
        n1 = group_sizes(here, n_groups)
        if (n1 == len(rows)).any():
            continue
        ranked = rank_columns(matrix[rows])
        deviation = group_sums(ranked.with_data(ranked.deviation), here, n_groups)
        middle = ranked.zero_rank[:, None] * n1
        yield Part(ranked, here, n1, deviation + middle - n1 * (len(rows) + 1.0) / 2.0)


# -- p moves in steps where few cells are active ----------------------------------------------------------------------


class _Steps:
    """Collects from each stratum what the probability of an arrangement of the active cells depends on."""

    def __init__(self, shape: tuple[int, int]) -> None:
        # of active cells inside, and of all: how many, their ranks (less those of silent cells) and squares of these
        self._inside, self._all, self._sum, self._sum_all = (np.zeros(shape) for _ in range(4))
        # weighted with the share of the group
        self._expected, self._step, self._mean, self._square = (np.zeros(shape) for _ in range(4))
        self._step_all, self._square_all = np.zeros(shape), np.zeros(shape)
        self._n: list[float] = []
        self._n1: list[np.ndarray] = []
        self._m: list[np.ndarray] = []

    def add(self, part: Part) -> None:
        """Groups without a pair in the stratum keep their cells whatever is shuffled, and are left out."""
        ranked, some = part.ranked, (part.pairs > 0).astype(np.float64)
        share = some * part.n1 / part.n
        m = np.diff(ranked.indptr).astype(np.float64)
        deviation = ranked.with_data(ranked.deviation * part.weight)
        sums = group_sums(deviation, part.groups, len(share))
        squares = np.asarray(deviation.power(2).sum(axis=0)).ravel()
        self._inside += group_sums(ranked.with_data(np.ones(len(ranked.values))), part.groups, len(share)) * some
        self._sum += sums * some
        for total, by_share, values in (
            (self._all, self._expected, m),
            (self._sum_all, self._mean, sums.sum(axis=1)),
            (self._square_all, self._square, squares),
            (self._step_all, self._step, m * part.weight),
        ):
            total += np.outer(values, some)
            by_share += np.outer(values, share)
        self._n.append(float(part.n))
        self._n1.append(np.where(some > 0, part.n1, -1.0))
        self._m.append(m)

    def log_p(self, total: np.ndarray) -> np.ndarray:
        """Logarithm of a part of p that no shuffling is needed for, as in the test without strata.

        How many active cells come to lie in the group is exact (a sum of hypergeometric numbers); how their ranks add
        up is taken as normal, with the moments of active cells that are drawn in proportion to the share of the group
        in their stratum. Where there are many such cells inside and outside, steps are small, and this is minus
        infinity.
        """
        out = np.full(total.shape, -np.inf)
        if not self._n:
            return out
        # the group and all others are the same test: the side with fewer active cells is counted
        flip = self._all - self._inside < self._inside
        few = np.where(flip, self._all - self._inside, self._inside) <= _MOST_COUNTED
        few &= (self._expected > 0) & (self._expected < self._all)
        features, wanted = np.nonzero(few)
        flip, at = flip[few], self._all[few]

        def here(inside: np.ndarray, everywhere: np.ndarray) -> np.ndarray:
            return np.where(flip, everywhere[few] - inside[few], inside[few])

        active, ranks = here(self._inside, self._all), here(self._sum, self._sum_all)
        expected = here(self._expected, self._all)
        mean = here(self._mean, self._sum_all) / expected
        variance = np.maximum(here(self._square, self._square_all) / expected - mean**2, 0.0)
        step = 0.5 * here(self._step, self._step_all) / expected  # rank sums lie a whole rank apart
        side = np.where((total[few] >= 0) != flip, 1.0, -1.0)
        m, n1 = np.ascontiguousarray(np.array(self._m).T), np.ascontiguousarray(np.array(self._n1).T)
        counts = _log_counts(m, n1, np.array(self._n), features, wanted, active.astype(np.int64), side > 0, flip)
        log_p = np.full(len(features), -np.inf)
        for more, log_count in zip((0.0, 1.0), counts, strict=True):
            count = active + side * more
            spread = np.sqrt(np.maximum(count * (at - count), 0.0) / np.maximum(at - 1.0, 1.0) * variance)
            beyond = side * (ranks - count * mean) - step
            z = np.divide(beyond, spread, out=np.where(beyond > 0, np.inf, -np.inf), where=spread > 0)
            tail = special.log_ndtr(-z)
            if not more:
                tail = np.maximum(tail, -log_choose(at, count))
            possible = np.isfinite(log_count)
            log_p[possible] = np.logaddexp(log_p[possible], (log_count + tail)[possible])
        out[few] = log_p
        return out


@compiled
def _log_counts(
    m: np.ndarray,
    n1: np.ndarray,
    n: np.ndarray,
    features: np.ndarray,
    wanted: np.ndarray,
    active: np.ndarray,
    more: np.ndarray,
    flip: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities that `active` cells, and one more (or one fewer), of all active ones are in a group.

    `m` (features x strata) of `n` cells are active in a stratum, and `n1` (groups x strata; -1: leave out) are of the
    group; with `flip` they are not.
    """
    first, second = np.empty(len(features)), np.empty(len(features))
    log_factorial = np.zeros(int(n.max()) + 2)
    for i in range(1, len(log_factorial)):
        log_factorial[i] = log_factorial[i - 1] + np.log(i)
    for pair in range(len(features)):
        f, g, k = features[pair], wanted[pair], active[pair]
        top = k + 1
        # probabilities of the counts so far, divided by exp(scale)
        so_far, scale = np.zeros(top + 1), 0.0
        so_far[0] = 1.0
        for s in range(len(n)):
            drawn, size, cells = int(m[f, s]), int(n1[g, s]), int(n[s])
            if drawn == 0 or size < 0:
                continue
            if flip[pair]:
                size = cells - size
            low, high = max(0, drawn + size - cells), min(drawn, size)
            after = np.zeros(top + 1)
            for c in range(low, min(high, top) + 1):
                ways = log_factorial[drawn] - log_factorial[c] - log_factorial[drawn - c]
                ways += log_factorial[cells - drawn] - log_factorial[size - c]
                ways -= log_factorial[cells - drawn - size + c]
                ways -= log_factorial[cells] - log_factorial[size] - log_factorial[cells - size]
                p = np.exp(ways)
                for before in range(top + 1 - c):
                    after[before + c] += so_far[before] * p
            largest = after.max()
            if largest == 0.0:
                so_far = after
                break
            scale += np.log(largest)
            so_far = after / largest
        first[pair] = np.log(so_far[k]) + scale if so_far[k] > 0 else -np.inf
        other = k + 1 if more[pair] else k - 1
        second[pair] = np.log(so_far[other]) + scale if other >= 0 and so_far[other] > 0 else -np.inf
    return first, second
