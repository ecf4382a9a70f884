"""How large are scores of gene sets by chance? P-values from features whose cells were shuffled.

A test that shuffles genes takes them as independent. Genes of a pathway go up and down together, so that even for a
feature that has nothing to do with them all or none stand out, and the score of such a set spreads wider than that of
as many random genes. How much wider is a property of the set and the cells, not of the feature: shuffled copies of
features show it, and a thousand are enough for small p-values too, since only two moments are taken from them.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy import special

from ._enrichment import SetTest

_SMALLEST = 1e-300


class BoundedTest(SetTest, Protocol):
    """A test whose score has a largest possible value."""

    half_step: float | np.ndarray
    """Half of the distance between shares where they come in steps, for all sets or each; 0 where they do not."""

    def share(self, score: np.ndarray) -> np.ndarray:
        """Squares of scores (overlaps, of a one-sided test) relative to the largest possible one, features x sets."""


def null_sums(test: BoundedTest, statistic: np.ndarray) -> np.ndarray:
    """Sums over shuffled copies (copies x genes): share of the largest score, its square, square of the score."""
    score = test(np.asarray(statistic, dtype=np.float64))[0]
    share = test.share(score)
    return np.stack([share.sum(0), (share**2).sum(0), (score**2).sum(0)])


class ShuffledSets:
    """A test whose p-values have to hold among shuffled copies of features as well: the larger of both.

    Among copies, the squared score of a set, as a share of the largest possible one, follows about a beta distribution
    (exactly, if genes were independent and their statistics normal), of which two moments are matched, set by set. The
    score is relative to the spread over all genes of the same feature, so that the test stays a competitive one: random
    genes are no finding for a feature that has to do with many genes (restandardization, Efron and Tibshirani 2007).
    Copies have no genes that stand out. Where a feature has, a set can hold some of them by chance, which only the
    p-value of the test itself takes into account.

    Parameters
    ----------
    test
        Gives scores, and p-values by shuffled genes.
    moments
        Means over copies of what :func:`null_sums` sums.
    """

    def __init__(self, test: BoundedTest, moments: np.ndarray) -> None:
        self._test = test
        first, second, squares = moments
        self.spread = np.sqrt(squares)
        """Root mean square of the score of each set among the copies."""
        variance = np.maximum(second - first**2, 1e-12 * first)
        total = np.divide(first * (1.0 - first), variance, out=np.ones_like(first), where=variance > 0) - 1.0
        self._moves = variance > 0
        total = np.where(self._moves, np.maximum(total, 1e-6), 1.0)
        first = np.where(self._moves, first, 0.5)
        self._a, self._b = first * total, (1.0 - first) * total

    def __call__(self, statistic: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores and evidence of the test, with logarithms of the larger p; by copies it is at least 1e-300."""
        score, log_p, evidence = self._test(statistic)
        share = self._test.share(score) - self._test.half_step
        p = special.betaincc(self._a, self._b, np.clip(share, 0.0, 1.0))
        # a set that no copy moves: nothing is known of it, so its p is 1
        by_copies = np.log(np.where(self._moves, np.clip(p, _SMALLEST, 1.0), 1.0))
        return score, np.maximum(log_p, by_copies), evidence
