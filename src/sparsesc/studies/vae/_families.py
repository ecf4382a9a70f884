"""Which family of distributions fits the counts of each gene best, with the size of the cell as exposure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse, stats

from sparsesc._compiled import compiled
from sparsesc.stats.core._moments import check_groups
from sparsesc.stats.genes._thinning import overdispersion as moment_overdispersion

from ._likelihoods import LOG_NORMAL, NEGATIVE_BINOMIAL, ZERO_INFLATED, maximize

FAMILIES = ("poisson", "nb", "zinb", "lognormal")
_SHARED = np.array([0, 1, 2, 1])  # parameters of each in addition to the rates
_BLOCK = 256  # genes between two updates of a progress bar
_WIDTH = 0.01  # relative width of the bins of cells without a count
_ABSENT = -30.0  # log rate of a group without a count


@dataclass(frozen=True)
class CountFits:
    """Maximum likelihood fits, one row per gene; families in the order of :data:`FAMILIES`."""

    loglik: np.ndarray
    """Genes x families; 0 for genes without a count."""
    overdispersion: np.ndarray
    """Of the negative binomial; 0 where the variance does not exceed a Poisson variable's."""
    overdispersion_zinb: np.ndarray
    zero_inflation: np.ndarray
    """Share of the cells that the zero-inflated family sets to zero."""
    n_large: np.ndarray
    """Cells with three counts or more, which distinguish inflation from overdispersion."""
    zeros: np.ndarray
    """Genes x families: expected share of zeros."""
    n_cells: int
    n_groups: int

    @property
    def bic(self) -> np.ndarray:
        """Bayesian information criterion, genes x families: lower is better."""
        return (self.n_groups + _SHARED) * np.log(self.n_cells) - 2 * self.loglik

    @property
    def pval_overdispersion(self) -> np.ndarray:
        """Likelihood-ratio test of Poisson against negative binomial."""
        return _mixture_p(self.loglik[:, 1] - self.loglik[:, 0])

    @property
    def pval_inflation(self) -> np.ndarray:
        """Likelihood-ratio test of negative binomial against zero-inflated negative binomial.

        Twice the gain is divided by 1 + 0.5 / sqrt(cells with three counts or more): with few such cells it is larger
        than its limit for many cells (7 % of simulated tests are below .05 with 8 of them; 6 % with 100).
        """
        gain = self.loglik[:, 2] - self.loglik[:, 1]
        return _mixture_p(gain / (1 + 0.5 / np.sqrt(np.maximum(self.n_large, 1))))


def _mixture_p(gain: np.ndarray) -> np.ndarray:
    """P of a gain in log-likelihood by a parameter at its bound: in half of the cases there is no gain."""
    return np.where(gain > 0, 0.5 * stats.chi2.sf(2 * gain, 1), 1.0)


def join_fits(parts: Sequence[CountFits]) -> CountFits:
    """Blocks of genes one after the other."""
    per_gene = ("loglik", "overdispersion", "overdispersion_zinb", "zero_inflation", "n_large", "zeros")
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in per_gene}
    return replace(parts[0], **joined)


@dataclass(frozen=True)
class _Bins:
    """Cells of one group and nearly one size."""

    of: np.ndarray
    """Bin of each cell."""
    group: np.ndarray
    n: np.ndarray
    total: np.ndarray
    """Sum of sizes."""

    @classmethod
    def cut(cls, sizes: np.ndarray, groups: np.ndarray) -> _Bins:
        level = np.floor(np.log(sizes / sizes.min()) / _WIDTH).astype(np.int64)
        codes, of = np.unique(groups * (level.max() + 1) + level, return_inverse=True)
        return cls(of, codes // (level.max() + 1), np.bincount(of).astype(np.float64), np.bincount(of, sizes))


type _Observed = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@compiled
def _observe(
    cells: np.ndarray,
    counts: np.ndarray,
    sizes: np.ndarray,
    groups: np.ndarray,
    bins: np.ndarray,
    bin_group: np.ndarray,
    bin_n: np.ndarray,
    bin_total: np.ndarray,
) -> _Observed:
    """Bins of the cells without a count, then the others one by one; and how many cells have more than k counts."""
    n_bins, n_counts = len(bin_n), len(cells)
    n = n_bins + n_counts
    x, s, w, g = np.zeros(n), np.empty(n), np.ones(n), np.empty(n, np.int64)
    w[:n_bins], s[:n_bins], g[:n_bins] = bin_n, bin_total, bin_group
    above = np.zeros(int(counts.max()))
    for k in range(n_counts):
        cell, i = cells[k], n_bins + k
        x[i], s[i], g[i] = counts[k], sizes[cell], groups[cell]
        w[bins[cell]] -= 1.0
        s[bins[cell]] -= sizes[cell]
        above[int(counts[k]) - 1] += 1.0
    for b in range(n_bins):
        s[b] = s[b] / w[b] if w[b] > 0.5 else 1.0
    for k in range(len(above) - 2, -1, -1):
        above[k] += above[k + 1]
    return x, s, w, g, above


@compiled
def _fix_absent(theta: np.ndarray, spread: np.ndarray, totals: np.ndarray) -> None:
    """A group without a count has a rate of zero, whatever the other groups have."""
    for j in range(len(totals)):
        if totals[j] <= 0.0:
            theta[j], spread[j] = _ABSENT, 0.0


@compiled
def _start(shared: np.ndarray, rates: np.ndarray, totals: np.ndarray, phi: float) -> tuple[np.ndarray, np.ndarray]:
    """Starting values and a guess of their variances: log rates, then the parameters that all cells share."""
    n_groups = len(rates)
    theta, spread = np.empty(n_groups + len(shared)), np.empty(n_groups + len(shared))
    theta[:n_groups] = np.log(np.maximum(rates, 1e-300))
    theta[n_groups:] = shared
    spread[:n_groups] = (1.0 + phi * rates) / np.maximum(totals, 1e-300)
    spread[n_groups:] = 4.0 / (1.0 + totals.sum())
    _fix_absent(theta, spread, totals)
    return theta, spread


@compiled
def _log_p_zero(phi: float, mu: float) -> float:
    """Log probability of a zero."""
    return -math.log1p(phi * mu) / phi if phi > 0.0 else -mu


@compiled
def _fit_block(
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    start: np.ndarray,
    sizes: np.ndarray,
    groups: np.ndarray,
    n_groups: int,
    bins: np.ndarray,
    bin_group: np.ndarray,
    bin_n: np.ndarray,
    bin_total: np.ndarray,
    with_inflation: bool,
    with_log_normal: bool,
    loglik: np.ndarray,
    estimates: np.ndarray,
    zeros: np.ndarray,
) -> None:
    """Fit all families to each column.

    `estimates` are overdispersion without and with inflation, inflation, and the cells with three counts or more.
    """
    size, n_cells = bin_total / bin_n, bin_n.sum()
    for gene in range(len(indptr) - 1):
        entries = slice(indptr[gene], indptr[gene + 1])
        if entries.start == entries.stop:
            zeros[gene] = n_cells
            continue
        observed = _observe(indices[entries], data[entries], sizes, groups, bins, bin_group, bin_n, bin_total)
        x, s, w, g, above = observed
        estimates[gene, 3] = above[2] if len(above) > 2 else 0.0
        totals, exposure = np.zeros(n_groups), np.zeros(n_groups)
        constant = 0.0
        for i in range(len(x)):
            totals[g[i]] += w[i] * x[i]
            exposure[g[i]] += w[i] * s[i]
            constant -= math.lgamma(x[i] + 1.0)
        rates = totals / exposure
        poisson, score = constant, 0.0
        for i in range(len(x)):
            mu = s[i] * rates[g[i]]
            poisson += x[i] * math.log(mu) - mu if x[i] > 0.0 else -w[i] * mu
            score += w[i] * ((x[i] - mu) ** 2 - x[i])
        loglik[gene, :3] = poisson

        phi, fitted = 0.0, rates
        if score > 0.0:  # otherwise any overdispersion lowers the likelihood, and the Poisson fit is the best
            phi = min(max(start[gene], 0.01), 50.0)
            theta, spread = _start(np.array([math.log(phi)]), rates, totals, phi)
            value = maximize(NEGATIVE_BINOMIAL, theta, spread, *observed) + constant
            if value > poisson:
                loglik[gene, 1:3] = value
                phi, fitted = math.exp(theta[n_groups]), np.exp(theta[:n_groups])
            else:
                phi = 0.0
        estimates[gene, 0] = estimates[gene, 1] = phi
        for b in range(len(bin_n)):
            zeros[gene, 0] += bin_n[b] * math.exp(-rates[bin_group[b]] * size[b])
            zeros[gene, 1] += bin_n[b] * math.exp(_log_p_zero(phi, fitted[bin_group[b]] * size[b]))
        zeros[gene, 2] = zeros[gene, 1]

        # zeros beyond the expected ones are overdispersion as well: without it there is no inflation
        if with_inflation and phi > 0.0:
            for attempt in range(2):
                # near the negative binomial; then with inflation instead of most of its overdispersion
                share, narrow = (0.02, phi) if attempt == 0 else (0.3, 0.25 * phi)
                shared = np.array([math.log(narrow), math.log(share / (1.0 - share))])
                theta, spread = _start(shared, fitted / (1.0 - share), totals, phi)
                value = maximize(ZERO_INFLATED, theta, spread, *observed) + constant
                if value > loglik[gene, 2]:
                    loglik[gene, 2] = value
                    narrow, odds = math.exp(theta[n_groups]), math.exp(theta[n_groups + 1])
                    estimates[gene, 1], estimates[gene, 2] = narrow, odds / (1.0 + odds)
                    zeros[gene, 2] = 0.0
                    for b in range(len(bin_n)):
                        p = math.exp(_log_p_zero(narrow, math.exp(theta[bin_group[b]]) * size[b]))
                        zeros[gene, 2] += bin_n[b] * (odds + p) / (1.0 + odds)

        if not with_log_normal:
            continue
        theta, spread = _start(np.zeros(1), rates, totals, 0.0)
        theta[:n_groups] = -1.0
        spread[:n_groups] = 4.0 / exposure
        _fix_absent(theta, spread, totals)
        loglik[gene, 3] = maximize(LOG_NORMAL, theta, spread, *observed)
        for b in range(len(bin_n)):
            top = math.exp(theta[n_groups]) * math.log1p(0.5 / size[b]) - theta[bin_group[b]]
            zeros[gene, 3] += bin_n[b] * 0.5 * math.erfc(-top * math.sqrt(0.5))
    zeros /= n_cells


def fit_families(
    counts: sparse.spmatrix, sizes: np.ndarray, groups: np.ndarray | None = None, *, families: Sequence[str] = FAMILIES
) -> Iterator[tuple[slice, CountFits]]:
    """Fit Poisson, negative binomial, zero-inflated negative binomial and rounded log-normal to every gene.

    The mean count of a cell is its size times the gene's rate in its group; overdispersion, zero inflation and the
    standard deviation of the log-normal are the same in all groups. In the log-normal family, log1p(count / size) is a
    normal variable, rounded to the values that counts can have: the assumption of a Gaussian likelihood on
    log-normalized values, as a distribution of counts, so that its likelihood can be compared with the others'.

    Parameters
    ----------
    counts
        Cells x genes, whole numbers.
    sizes
        Relative size of each cell, positive (their mean is best about 1).
    groups
        Codes ``0 ...`` of groups of cells that each have a rate; ``None``: one group.
    families
        ``"zinb"`` and ``"lognormal"`` can be left out: the fits of the first are then those of the negative binomial,
        and the likelihood of the other is 0.

    Yields
    ------
    Genes, and their fits.

    Notes
    -----
    Cells without a count are joined if they are of one group and their sizes differ by less than one percent, so that
    the work depends on the number of counts.

    Raises
    ------
    ValueError
        If `sizes` are not positive numbers.
    """
    n_cells, n_genes = counts.shape
    sizes = np.asarray(sizes, dtype=np.float64)
    if sizes.shape != (n_cells,) or not (np.isfinite(sizes).all() and (sizes > 0).all()):
        msg = f"sizes must be a positive number for each of {n_cells} cells."
        raise ValueError(msg)
    groups, n_groups = check_groups(np.zeros(n_cells, int) if groups is None else groups, n_cells)
    bins = _Bins.cut(sizes, groups)
    start = moment_overdispersion(counts, sizes=sizes, groups=groups)
    columns = sparse.csc_matrix(counts)
    for begin in range(0, n_genes, _BLOCK):
        genes = slice(begin, min(begin + _BLOCK, n_genes))
        n = genes.stop - genes.start
        loglik, estimates, zeros = np.zeros((n, 4)), np.zeros((n, 4)), np.zeros((n, 4))
        _fit_block(
            columns.indptr[genes.start : genes.stop + 1], columns.indices, columns.data.astype(np.float64, copy=False),
            start[genes], sizes, groups, n_groups, bins.of, bins.group, bins.n, bins.total, "zinb" in families,
            "lognormal" in families, loglik, estimates, zeros,
        )  # fmt: skip
        r, r_zinb, inflation, n_large = estimates.T
        yield genes, CountFits(loglik, r, r_zinb, inflation, n_large, zeros, n_cells, n_groups)
