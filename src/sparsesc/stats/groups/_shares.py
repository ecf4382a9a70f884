"""Do shares of cells differ between two groups of samples? Samples vary, and have different numbers of cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsesc.stats.core._student import log_p_two_sided

_HALVINGS = 60


@dataclass(frozen=True)
class ShareDifferences:
    """One test a feature; NaN where none was made."""

    effect: np.ndarray
    """Difference of the groups' means of ``2 arcsin(sqrt(share))`` (Cohen's h), second less first."""
    se: np.ndarray
    df: np.ndarray
    """Degrees of freedom of t."""
    log_p: np.ndarray
    """Natural logarithm of the two-sided p."""


def compare_shares(
    n_active: np.ndarray, n_cells: np.ndarray, second: np.ndarray, *, min_expected: float = 5.0
) -> ShareDifferences:
    r"""Test whether shares of active cells differ between two groups of samples, with samples as replicates.

    On the scale ``2 arcsin(sqrt(share))`` a share of n cells has the sampling variance 1 / n, whatever it is; samples
    vary by :math:`\tau^2` beyond that. Samples are weighted by ``1 / (tau^2 + 1 / n)``, so one with few cells counts
    less, and is not taken for an outlier. :math:`\tau^2` of each feature is what its samples show (Paule and Mandel);
    that it is an estimate is accounted for by degrees of freedom (Satterthwaite), at most the samples less two.

    Parameters
    ----------
    n_active
        Cells with the feature, samples x features.
    n_cells
        Cells of each sample.
    second
        Which samples are of the second group, (samples,) bool.
    min_expected
        A feature is tested where at least so many active cells are expected on either side, and so many silent ones.

    Raises
    ------
    ValueError
        If a group is empty, or there are fewer than three samples: then nothing tells how much samples vary.

    References
    ----------
    Paule and Mandel (1982), J Res Natl Bur Stand 87:377. Knapp and Hartung (2003), Stat Med 22:2693 (t instead of
    normal). Cohen (1988), Statistical Power Analysis for the Behavioral Sciences (h).
    """
    second = np.asarray(second, dtype=bool)
    n_cells = np.asarray(n_cells, dtype=np.float64)
    sizes = [int((~second).sum()), int(second.sum())]
    if min(sizes) < 1 or sum(sizes) < 3:
        msg = f"At least one sample in each group and three in all are needed, found {sizes[0]} and {sizes[1]}."
        raise ValueError(msg)
    n_active = np.asarray(n_active, dtype=np.float64)
    # a quarter of a cell makes the mean of this the same for few and for many cells, to first order
    y = 2 * np.arcsin(np.sqrt((n_active + 0.25) / (n_cells[:, None] + 0.5)))
    groups = (~second, second)
    weight = 1.0 / (_excess_variance(y, n_cells, groups) + 1.0 / n_cells[:, None])
    means, totals = _means(y, weight, groups)
    effect, variance = means[1] - means[0], 1 / totals[0] + 1 / totals[1]
    # How the variance of the effect moves with that between samples, and how well the latter is known.
    slope, known = np.zeros(y.shape[1]), np.zeros(y.shape[1])
    for group, total in zip(groups, totals, strict=True):
        second_power, third_power = ((weight[group] ** power).sum(0) for power in (2, 3))
        slope += second_power / total**2
        known += second_power - 2 * third_power / total + (second_power / total) ** 2
    df = np.clip(known * (variance / slope) ** 2, 1.0, len(second) - 2.0)

    pooled = n_active.sum(0) / n_cells.sum()
    fewest = min(n_cells[second].sum(), n_cells[~second].sum())
    tested = np.minimum(pooled, 1 - pooled) * fewest >= min_expected
    se = np.sqrt(variance)
    columns = (effect, se, df, log_p_two_sided(effect / se, df))
    return ShareDifferences(*(np.where(tested, values, np.nan) for values in columns))


type _Groups = tuple[np.ndarray, np.ndarray]


def _means(y: np.ndarray, weight: np.ndarray, groups: _Groups) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weighted mean and total weight of each group."""
    totals = [weight[group].sum(0) for group in groups]
    means = [(weight[group] * y[group]).sum(0) / total for group, total in zip(groups, totals, strict=True)]
    return means, totals


def _excess_variance(y: np.ndarray, n_cells: np.ndarray, groups: _Groups) -> np.ndarray:
    """The variance between samples at which weighted squares are what they should be; 0 where they are less."""
    low = np.zeros(y.shape[1])
    high = np.full(y.shape[1], np.pi**2)  # values lie between 0 and pi: no variance is larger
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        weight = 1.0 / (middle + 1.0 / n_cells[:, None])
        means, _ = _means(y, weight, groups)
        squares = (weight * (y - np.where(groups[1][:, None], means[1], means[0])) ** 2).sum(0)
        more = squares > len(y) - 2
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return low
