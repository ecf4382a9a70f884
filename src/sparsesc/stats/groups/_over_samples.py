"""Do features go with groups, or numbers, in sample after sample? Samples, such as donors, are the replicates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse, special

from sparsesc.stats.core._correlate import correlate
from sparsesc.stats.core._holdout import members
from sparsesc.stats.core._moments import group_sizes, group_sums
from sparsesc.stats.core._student import log_p_two_sided

from ._association import auroc, pearson_one_hot
from ._moderated import fit_linear, t_tests
from ._within_strata import groups_within, numbers_within, parts_within

FEWEST_SAMPLES = 3
FEWEST_CELLS = 3
_FEWEST_EXPECTED = 5.0  # active cells a sample, on the side with fewer


@dataclass(frozen=True)
class OverSamples:
    """Features x groups; NaN where no sample compares, and `log_p` where fewer than three do."""

    auroc: np.ndarray
    pearson_r: np.ndarray
    log_p: np.ndarray
    n_samples: np.ndarray
    """Samples with cells inside and outside, by group; where samples are of one group each, those of the group."""
    n_compared: np.ndarray
    """Cells of the group in these samples."""


@dataclass(frozen=True)
class NumbersOverSamples:
    """One entry a feature."""

    r: np.ndarray
    log_p: np.ndarray
    n_samples: int


def varies_within(values: np.ndarray, samples: np.ndarray) -> bool:
    """Whether any sample has several values."""
    return any(np.ptp(values[rows]) > 0 for rows in members(samples))


def groups_over_samples(
    codes: sparse.spmatrix,
    groups: np.ndarray,
    samples: np.ndarray,
    n_groups: int | None = None,
    *,
    strata: np.ndarray | None = None,
    test: bool = True,
) -> OverSamples:
    r"""Test whether a feature is higher or lower in a group, in sample after sample.

    Parameters
    ----------
    codes
        Cells x features, sparse.
    groups, samples
        Group and sample of each cell, whole numbers from 0.
    n_groups
        Number of groups; ``None``: the largest code plus one.
    strata
        Compare cells of the same stratum of a sample only (groups that vary within samples).
    test
        Whether p-values are wanted; without, `log_p` is NaN.

    Returns
    -------
    Effects and p-values over samples. `auroc` and `pearson_r` are means over samples, or those of the samples' means
    where each sample is of one group.

    Notes
    -----
    Where samples hold cells of several groups, sample :math:`j` gives :math:`d_j = \mathrm{AUROC}_j - 1/2`, if it has
    three cells inside the group and three outside. The test is the t test of :math:`\bar d = 0`. For rare features and
    small groups :math:`d_j` is skewed, which misleads t. Where fewer than five active cells of a sample are expected
    inside the group, or outside, p is therefore no less than that of shuffling cells within samples
    (:func:`groups_within`).

    Where all samples are of one group each, the test is the t test of equal variances between the mean activations of
    samples inside and outside.
    """
    n_groups = int(groups.max(initial=-1)) + 1 if n_groups is None else n_groups
    if not varies_within(groups, samples):
        return _between(codes, groups, samples, n_groups)
    shape = (codes.shape[1], n_groups)
    n = np.zeros(n_groups)
    compared = np.zeros(n_groups)
    sums, squares, sum_r, expected = (np.zeros(shape) for _ in range(4))
    matrix = sparse.csr_matrix(codes)
    inner = np.zeros(len(groups), np.int64) if strata is None else strata
    for rows in members(samples):
        n1 = np.zeros(n_groups)
        n0, total, pairs, r, weights = n1.copy(), np.zeros(shape), n1.copy(), np.zeros(shape), n1.copy()
        here = matrix[rows]
        for part in parts_within(here, groups[rows], inner[rows], n_groups):
            some = part.pairs > 0
            n1 += part.n1 * some
            n0 += (part.n - part.n1) * some
            total += part.excess * part.weight
            pairs += part.pairs * part.weight
            scale = np.sqrt(np.outer(part.ss_x, part.pairs / part.n))
            r += np.divide(part.product, scale, out=np.zeros(shape), where=scale > 0) * part.pairs / part.n
            weights += part.pairs / part.n
        used = (n1 >= FEWEST_CELLS) & (n0 >= FEWEST_CELLS)
        d = np.where(used, total / np.where(used, pairs, 1.0), 0.0)
        n += used
        compared += n1 * used
        m = np.bincount(here.indices, minlength=shape[0])
        expected += np.outer(m, used * np.minimum(n1, n0) / np.maximum(n1 + n0, 1))
        sums += d
        squares += d**2
        sum_r += np.where(used, r / np.where(used, weights, 1.0), 0.0)
    count = np.where(n > 0, n, np.nan)
    mean, mean_r = sums / count, sum_r / count
    log_p = np.full(shape, np.nan)
    enough = n >= FEWEST_SAMPLES
    if test and enough.any():
        variance = np.maximum(squares - count * mean**2, 0.0)
        variance = np.where(variance < 1e-12 * squares, 0.0, variance) / np.maximum(count - 1, 1)  # else only rounding
        se = np.sqrt(variance / count)
        t = np.divide(mean, se, out=np.where(np.abs(mean) > 1e-12, np.inf, 0.0), where=se > 0)
        log_p = _log_p_t(t, np.broadcast_to(np.maximum(count - 1, 1), shape))
        cells = groups_within(matrix, groups, joined(samples, inner), n_groups).log_p
        log_p = np.where(expected < _FEWEST_EXPECTED * count, np.maximum(log_p, cells), log_p)
        log_p = np.where(enough, log_p, np.nan)
    return OverSamples(0.5 + mean, mean_r, log_p, n.astype(np.int64), compared.astype(np.int64))


def numbers_over_samples(
    codes: sparse.spmatrix,
    values: np.ndarray,
    samples: np.ndarray,
    *,
    kind: Literal["pearson", "spearman"] = "pearson",
    strata: np.ndarray | None = None,
) -> NumbersOverSamples:
    """Test whether a feature goes with a number, in sample after sample.

    Within samples: the t test of the mean over samples of r, with p no less than that of shuffling cells within samples
    where a feature is active, or silent, in fewer than ten cells of a sample on average. Where the number is the same
    in all cells of a sample: r of the samples' means, by permutation of samples.

    Parameters
    ----------
    codes
        Cells x features, sparse.
    values
        One finite number for each cell.
    samples
        Sample of each cell, whole numbers from 0.
    kind
        ``"pearson"`` or ``"spearman"``.
    strata
        Compare cells of the same stratum of a sample only (numbers that vary within samples).
    """
    n_features = codes.shape[1]
    matrix = sparse.csr_matrix(codes)
    nothing = np.full(n_features, np.nan)
    if not varies_within(values, samples):
        means, first = _sample_means(matrix, samples)
        if len(means) < FEWEST_SAMPLES:
            return NumbersOverSamples(nothing, nothing, len(means))
        r, log_p = correlate(sparse.csr_matrix(means), values[first], kind=kind)
        return NumbersOverSamples(r[:, 0], log_p[:, 0], len(means))
    inner = np.zeros(len(values), np.int64) if strata is None else strata
    rs = [
        numbers_within(matrix[rows], values[rows], inner[rows], kind=kind).r
        for rows in members(samples)
        if len(rows) >= 2 * FEWEST_CELLS
    ]
    rs = [r for r in rs if not np.isnan(r).any()]
    if len(rs) < FEWEST_SAMPLES:
        return NumbersOverSamples(nothing, nothing, len(rs))
    d = np.array(rs)
    se = d.std(axis=0, ddof=1) / np.sqrt(len(d))
    mean = d.mean(axis=0)
    t = np.divide(mean, se, out=np.where(np.abs(mean) > 1e-12, np.inf, 0.0), where=se > 1e-12)
    log_p = _log_p_t(t, np.full(n_features, len(d) - 1.0))
    m = np.bincount(matrix.indices, minlength=n_features)
    few = np.minimum(m, len(values) - m) < 2 * _FEWEST_EXPECTED * len(d)
    cells = numbers_within(matrix, values, joined(samples, inner), kind=kind)
    return NumbersOverSamples(mean, np.where(few, np.maximum(log_p, cells.log_p), log_p), len(d))


def _between(codes: sparse.spmatrix, groups: np.ndarray, samples: np.ndarray, n_groups: int) -> OverSamples:
    """Samples of one group each, by their means."""
    means, first = _sample_means(sparse.csr_matrix(codes), samples)
    of_sample = groups[first]
    n1 = group_sizes(of_sample, n_groups)
    n0 = len(means) - n1
    matrix = sparse.csr_matrix(means)
    area, r = auroc(matrix, of_sample, n_groups), pearson_one_hot(matrix, of_sample, n_groups)
    r[:, np.minimum(n1, n0) == 0] = np.nan
    log_p = np.full(area.shape, np.nan)
    for group in np.flatnonzero((np.minimum(n1, n0) >= 2) & (len(means) > FEWEST_SAMPLES)):
        fit = fit_linear(means, (of_sample == group).astype(float)[:, None], np.empty((len(means), 0)))
        log_p[:, group] = t_tests(fit, moderate=False).log_p[0]
    return OverSamples(area, r, log_p, n1.astype(np.int64), group_sizes(groups, n_groups).astype(np.int64))


def _sample_means(matrix: sparse.csr_matrix, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples x features, and a cell of each."""
    _, first, position = np.unique(samples, return_index=True, return_inverse=True)
    sums = group_sums(matrix.astype(np.float64), position, len(first))
    return sums.T / np.bincount(position)[:, None], first


def joined(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One code for each pair of codes."""
    return np.unique(np.column_stack([a, b]), axis=0, return_inverse=True)[1].ravel()


def _log_p_t(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """As of t, where t may be infinite (all samples agree) or NaN (not tested)."""
    finite = np.isfinite(t)
    log_p = np.where(np.isnan(t), np.nan, -np.inf)
    log_p[finite] = log_p_two_sided(t[finite], df[finite])
    return log_p


def smallest_p(n_samples: int, n_others: int | None = None) -> float:
    """The smallest two-sided p of a test that assumes no distribution: by sign over samples, or by exchanging them."""
    if n_others is None:
        return float(2.0 ** (1 - n_samples))
    return (2.0 if n_samples == n_others else 1.0) / float(special.comb(n_samples + n_others, n_samples))
