"""Do the genes of a set stand out? Every method takes features x genes and gives features x sets.

All of them are competitive tests: genes of a set against the other genes of the universe, which are the columns.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled
from sparsesc.stats.core._largest import largest_in_rows
from sparsesc.stats.core._pearson3 import log_p_of_r
from sparsesc.stats.core._student import log_normal_tail, log_p_two_sided

from ._like_expressed import ExpressionBins


class SetTest(Protocol):
    """A test of gene sets, prepared for one universe of genes."""

    def __call__(self, statistic: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Test every set in every feature.

        Parameters
        ----------
        statistic
            Features x genes, float64.

        Returns
        -------
        score
            Features x sets, signed.
        log_p
            Natural logarithms of p-values, features x sets.
        evidence
            Features x genes: what the leading genes of a set are chosen by.
        """


def _times(statistic: np.ndarray, sets: sparse.csr_matrix) -> np.ndarray:
    """Dense features x genes times sparse genes x sets; `sets` is given transposed."""
    return np.ascontiguousarray((sets @ np.ascontiguousarray(statistic.T)).T)


class Ulm:
    """Univariate linear model: t of the slope when the gene statistic is regressed on the weights of a set.

    Parameters
    ----------
    sets
        Sets x genes, weights; 0 outside of a set.
    relabel
        P-values of the slope when genes are shuffled, from the first three moments of that distribution, which are
        exact. Otherwise those of t, which a few genes with extreme statistics make too small.
    bins
        Statistics and weights are relative to genes of the same bin, and genes are shuffled within bins. ``None``: all
        genes are compared with all.
    """

    def __init__(self, sets: sparse.csr_matrix, *, relabel: bool = True, bins: ExpressionBins | None = None) -> None:
        self._sets = sets.astype(np.float64)
        self._bins = bins or ExpressionBins(np.zeros(sets.shape[1]), size=sets.shape[1])
        self._standardized = bins is not None
        squares, self._cubes = self._bins.weight_sums(self._sets)
        self._squares = squares.sum(1)
        self._relabel = relabel
        # one for the mean of each bin
        self._n = sets.shape[1] - len(self._bins.n_genes) + 1
        self.df = self._n - 2
        """Degrees of freedom of the slope."""
        self.half_step = 0.0

    def __call__(self, statistic: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        r"""Slopes' t, logarithms of their two-sided p, and the statistic (with bins, in units of like genes).

        With :math:`Q_b` and :math:`C_b` the sums of squares and cubes in a bin of :math:`n_b` genes, the sum of
        products has the variance :math:`\sum_b Q_b Q_b' / (n_b - 1)` and the third central moment
        :math:`\sum_b n_b C_b C_b' / ((n_b - 1)(n_b - 2))` over all ways to shuffle genes within bins.
        """
        evidence = self._bins.standardize(statistic) if self._standardized else statistic
        centered = evidence if self._standardized else statistic - statistic.mean(1, keepdims=True)
        squares = (centered**2).sum(1)
        norm = np.sqrt(np.outer(squares, self._squares))
        r = np.divide(_times(centered, self._sets), norm, out=np.zeros_like(norm), where=norm > 0)
        r = np.clip(r, -1.0, 1.0)
        tiny = np.finfo(np.float64).eps
        t = r * np.sqrt(self.df / ((1.0 - r + tiny) * (1.0 + r + tiny)))
        if not self._relabel:
            return t, log_p_two_sided(t, self.df), evidence
        n = self._bins.n_genes
        third = (n / np.maximum((n - 1.0) * (n - 2.0), 1.0) * self._bins.sums(centered**3)) @ self._cubes.T
        skewness = np.divide(
            third * (self._n - 1.0) * max(self.df, 1), norm**3, out=np.zeros_like(norm), where=norm > 0
        )
        return t, log_p_of_r(r, skewness, self._n), evidence

    def share(self, score: np.ndarray) -> np.ndarray:
        """Squared correlation of the gene statistic and the weights."""
        return score**2 / (score**2 + self.df)


@compiled
def _average_ranks(values: np.ndarray, order: np.ndarray, ranks: np.ndarray, ties: np.ndarray) -> None:
    """Ranks from 1, ties averaged; ``ties`` gets the sum of t^3 - t over groups of t equal values."""
    for f in range(values.shape[0]):
        n = values.shape[1]
        i = 0
        total = 0.0
        while i < n:
            j = i + 1
            while j < n and values[f, order[f, j]] == values[f, order[f, i]]:
                j += 1
            size = float(j - i)
            total += size * size * size - size
            for m in range(i, j):
                ranks[f, order[f, m]] = 0.5 * (i + j + 1)
            i = j
        ties[f] = total


# as log_p_normal, whose values differ in their last digits
@compiled
def _normal_log_p(z: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(z)):
        out[i] = min(math.log(2.0) + log_normal_tail(abs(z[i])), 0.0)


class RankSum:
    """Two-sided Mann-Whitney test with tie and continuity correction: z of the genes of a set against all other genes.

    Parameters
    ----------
    sets
        Sets x genes; weights are ignored.
    """

    def __init__(self, sets: sparse.csr_matrix) -> None:
        self._sets = (sets != 0).astype(np.float64)
        self._size = np.asarray(self._sets.sum(1)).ravel()
        self.half_step = 0.0

    def __call__(self, statistic: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Signed z, its p, and the statistic itself."""
        statistic = np.ascontiguousarray(statistic)
        n_features, n = statistic.shape
        ranks, ties = np.empty(statistic.shape), np.empty(n_features)
        _average_ranks(statistic, np.argsort(statistic, axis=1), ranks, ties)
        inside, outside = self._size, n - self._size
        u = _times(ranks, self._sets) - inside * (inside + 1) / 2
        excess = u - inside * outside / 2
        variance = np.maximum(inside * outside / 12 * ((n + 1) - (ties / (n * (n - 1)))[:, None]), 0.0)
        distance = np.maximum(np.abs(excess) - 0.5, 0.0)
        z = np.copysign(np.divide(distance, np.sqrt(variance), out=np.zeros_like(u), where=variance > 0), excess)
        log_p = np.empty(z.size)
        _normal_log_p(z.ravel(), log_p)
        return z, log_p.reshape(z.shape), statistic

    def share(self, score: np.ndarray) -> np.ndarray:
        """Squares of z relative to that of a set with the largest statistics of all genes, without ties."""
        n = self._sets.shape[1]
        return np.minimum(score**2 * ((n + 1) / 3) / np.maximum(self._size * (n - self._size), 1.0), 1.0)


class Ora:
    """Over-representation: hypergeometric test of each feature's top genes, one-sided, within the universe.

    Parameters
    ----------
    sets
        Sets x genes; weights are ignored.
    n_up
        The top genes of a feature: so many with the largest positive statistics.
    """

    def __init__(self, sets: sparse.csr_matrix, *, n_up: int) -> None:
        self._sets = (sets != 0).astype(np.float64)
        self._size = np.asarray(self._sets.sum(1)).ravel().astype(np.int64)
        self._n_up = n_up
        self._sizes, self._size_at = np.unique(self._size, return_inverse=True)
        self._log_sf: dict[int, np.ndarray] = {}
        self.half_step = 0.5 / np.maximum(np.minimum(self._size, n_up), 1)
        """Half of a gene, as a share: overlaps are whole numbers."""

    def __call__(self, statistic: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log2 of overlap over expected overlap (each + 0.5), p of as large an overlap, the top genes' statistic."""
        n = statistic.shape[1]
        top = np.zeros(statistic.shape)
        rows, columns, _ = largest_in_rows(statistic, self._n_up, "up")
        top[rows, columns] = statistic[rows, columns]
        overlap = np.rint(_times((top > 0).astype(np.float64), self._sets)).astype(np.int64)
        drawn = (top > 0).sum(1)
        expected = self._size[None, :] * drawn[:, None] / n
        log_p = np.vstack([self._tails(n, int(d))[self._size_at, row] for d, row in zip(drawn, overlap, strict=True)])
        return np.log2((overlap + 0.5) / (expected + 0.5)), log_p, top

    def share(self, score: np.ndarray) -> np.ndarray:
        """Overlaps relative to the largest possible one, of features with `n_up` positive statistics."""
        expected = self._size * self._n_up / self._sets.shape[1]
        overlap = np.rint(2.0**score * (expected + 0.5) - 0.5)
        return np.clip(overlap * (2 * self.half_step), 0.0, 1.0)

    def _tails(self, n: int, drawn: int) -> np.ndarray:
        """Logarithm of P(overlap >= k), set sizes x k; computed once for all features that draw as many genes."""
        from scipy.stats import hypergeom

        if drawn not in self._log_sf:
            k = np.arange(drawn + 1)
            log_pmf = hypergeom.logpmf(k[None, :], n, self._sizes[:, None], drawn)
            self._log_sf[drawn] = np.minimum(np.logaddexp.accumulate(log_pmf[:, ::-1], axis=1)[:, ::-1], 0.0)
        return self._log_sf[drawn]


@compiled
def leading_genes(
    evidence: np.ndarray,
    rows: np.ndarray,
    sets: np.ndarray,
    sign: np.ndarray,
    indptr: np.ndarray,
    indices: np.ndarray,
    weights: np.ndarray,
    out: np.ndarray,
) -> None:
    """For pairs of row and set: the genes that carry the score, strongest first, into ``out`` (-1 where none is left).

    A gene carries a score when its evidence, its weight and the score have the product of signs 1.
    """
    most = out.shape[1]
    best = np.empty(most)
    for i in range(len(rows)):
        n = 0
        for p in range(indptr[sets[i]], indptr[sets[i] + 1]):
            gene = indices[p]
            value = evidence[rows[i], gene] * sign[i]
            value = value if weights[p] > 0 else -value
            if value <= 0.0 or (n == most and value <= best[most - 1]):
                continue
            j = min(n, most - 1)
            while j > 0 and best[j - 1] < value:
                best[j] = best[j - 1]
                out[i, j] = out[i, j - 1]
                j -= 1
            best[j] = value
            out[i, j] = gene
            n = min(n + 1, most)
        for j in range(n, most):
            out[i, j] = -1
