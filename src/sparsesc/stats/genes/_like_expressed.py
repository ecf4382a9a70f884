"""Do the genes of a set stand out among genes that are expressed as much? Gene statistics in units of their like.

Highly expressed genes have larger statistics than others, in whatever direction a feature goes with the depth and the
composition of its cells: among fitted features, nearly every set of highly expressed genes drawn at random stands out
among all genes. Within a bin of like genes there is next to no such trend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from ._enrichment import SetTest

BIN = 50  # fewer genes do not show their spread; more are not alike at the top, where expression is steep


class ExpressionBins:
    """Genes in bins of equal size by their mean expression; the last digits of a mean do not matter.

    Parameters
    ----------
    expression
        Mean of each gene; if all are equal, there is one bin.
    size
        Genes in a bin, at least.
    """

    def __init__(self, expression: np.ndarray, *, size: int = BIN) -> None:
        n = len(expression)
        n_bins = max(1, n // size) if np.ptp(expression) > 0 else 1
        rank = np.empty(n, np.int64)
        rank[np.argsort(expression.astype(np.float32), kind="stable")] = np.arange(n)
        self.of_gene = rank * n_bins // n
        """Bin of each gene, 0 for the least expressed."""
        self.n_genes = np.bincount(self.of_gene, minlength=n_bins).astype(np.float64)
        """Genes of each bin."""
        self._member = sparse.csr_matrix((np.ones(n), (self.of_gene, np.arange(n))), shape=(n_bins, n))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over the genes of each bin: rows x genes to rows x bins."""
        return np.ascontiguousarray((self._member @ np.ascontiguousarray(values.T)).T)

    def standardize(self, statistic: np.ndarray) -> np.ndarray:
        """Features x genes, with mean 0 and variance 1 over the genes of each bin (0 where all are equal)."""
        centered = statistic - (self.sums(statistic) / self.n_genes)[:, self.of_gene]
        size = self.sums(np.abs(statistic)) / self.n_genes
        spread = np.sqrt(self.sums(centered**2) / np.maximum(self.n_genes - 1.0, 1.0))
        inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-9 * size)
        return centered * inverse[:, self.of_gene]

    def weight_sums(self, sets: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Of the weights of sets (sets x genes) less their mean in each bin: sums of squares, and of cubes, by bin."""
        one, two, three = (np.asarray((sets.power(k) @ self._member.T).todense()) for k in (1, 2, 3))
        n = self.n_genes
        mean = one / n
        squares = two - n * mean**2
        # a set that holds a whole bin cannot differ from its like
        squares = np.where(squares > 1e-9 * two, squares, 0.0)
        return squares, three - 3 * mean * two + 2 * n * mean**3


class AmongLike:
    """A test of gene sets on statistics in units of genes of like expression.

    Parameters
    ----------
    test
        Of a method.
    bins
        Of the universe.
    """

    def __init__(self, test: SetTest, bins: ExpressionBins) -> None:
        self._test, self._bins = test, bins
        self.half_step = getattr(test, "half_step", 0.0)
        self.share = getattr(test, "share", None)

    def __call__(self, statistic: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the test makes of them."""
        return self._test(self._bins.standardize(statistic))
