"""How much of columns of numbers a label explains, against labels that are shuffled with respect to samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True)
class Explained:
    """Explained variance, one value per column."""

    share: np.ndarray
    """Share of the variance that the label explains; NaN for constant columns."""
    null_mean: np.ndarray
    null_sd: np.ndarray
    pval: np.ndarray


def explained(
    values: np.ndarray,
    labels: np.ndarray,
    *,
    strata: np.ndarray | None = None,
    n_permutations: int = 999,
    rng: np.random.Generator,
) -> Explained:
    """Share of the variance of each column that a label explains, with p by permutation of the label.

    Parameters
    ----------
    values
        Units x columns, finite.
    labels
        Codes ``0 ...`` of categories (integers): the share is that between categories, eta squared. Or numbers
        (floats): the squared correlation.
    strata
        Codes ``0 ...`` without gaps: labels are shuffled within strata only, and strata are first removed from both
        sides, so that the share is of the variance within strata.
    n_permutations
        Number of permutations. p is one plus the number that explain at least as much, over one plus their number.
    rng
        Draws.

    Notes
    -----
    Exact whatever the distribution of the values, if units are exchangeable (within strata) when the label means
    nothing. Cells of one sample are not exchangeable with those of another: give samples as strata, or means over
    samples as units.
    """
    n = len(values)
    centered = _center(np.asarray(values, dtype=np.float64), strata)
    total = (centered**2).sum(0)
    scale = np.abs(values).max(axis=0, initial=0.0) ** 2 * n
    varies = total > 1e-20 * np.maximum(scale, 1e-300)
    order = np.arange(n) if strata is None else np.argsort(strata, kind="stable")
    columns = labels[None, :] if np.issubdtype(labels.dtype, np.floating) else one_hot(labels)
    # Products of the label's columns within strata: shuffling within strata does not change them.
    dense = columns.toarray() if isinstance(columns, sparse.csr_matrix) else np.asarray(columns)
    within = _center(dense.T, strata)
    inverse = np.linalg.pinv(within.T @ within, rcond=1e-9, hermitian=True)

    def share(shuffled: np.ndarray) -> np.ndarray:
        sums = columns @ centered[shuffled]  # values are centered, so the columns need not be
        between = np.einsum("cj,cb,bj->j", sums, inverse, sums, optimize=True)
        return np.divide(between, total, out=np.full(len(total), np.nan), where=varies)

    observed = share(np.arange(n))
    drawn = np.empty((n_permutations, len(total)))
    for i in range(n_permutations):
        if strata is None:
            shuffled = rng.permutation(n)
        else:  # rows sorted by stratum, in random order within
            shuffled = np.empty(n, np.int64)
            shuffled[order] = order[np.lexsort((rng.random(n), strata[order]))]
        drawn[i] = share(shuffled)
    # permutations with the same split must count as reaching it, whatever the order of additions
    reached = (drawn >= observed * (1 - 1e-10) - 1e-12).sum(0)
    pval = np.where(varies, (1 + reached) / (1 + n_permutations), np.nan)
    return Explained(observed, drawn.mean(0), drawn.std(0), pval)


def _center(values: np.ndarray, strata: np.ndarray | None) -> np.ndarray:
    if strata is None:
        return values - values.mean(0)
    means = (one_hot(strata) @ values) / np.bincount(strata)[:, None]
    return values - means[strata]


def one_hot(codes: np.ndarray) -> sparse.csr_matrix:
    """Codes x rows."""
    n = len(codes)
    return sparse.csr_matrix((np.ones(n), (codes, np.arange(n))), shape=(int(codes.max(initial=-1)) + 1, n))
