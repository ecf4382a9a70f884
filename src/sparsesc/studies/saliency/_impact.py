"""Impact of gene sets on one unit: the mean over cells of the median over the genes of a set, against random sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ._medians import Ladders, summed_medians, upper_tail
from ._random_sets import RandomSets

_FIRST = 100  # draws that every set gets, where draws are costly
_ENOUGH = 10  # if so many of these reach the observed value, p is about .1 or more, and there are no further draws


@dataclass(frozen=True)
class SaliencyRows:
    """Absolute saliency, cells x genes, read in blocks."""

    read: Callable[[slice], np.ndarray]
    n: int
    at_once: int

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, self.n, self.at_once):
            part = slice(start, min(start + self.at_once, self.n))
            yield part, self.read(part)


@dataclass(frozen=True)
class SetImpact:
    """Impact of each set, and its test."""

    medians: np.ndarray
    """Cells x sets."""
    impact: np.ndarray
    """Means over cells."""
    sd: np.ndarray
    """Standard deviations over cells; 0 for a single cell."""
    score: np.ndarray
    """Impact minus its mean among random sets, over its standard deviation there."""
    pval: np.ndarray
    by_gene: np.ndarray
    """Mean of each gene over cells."""


def impact_of_sets(rows: SaliencyRows, sets: Ladders, null: RandomSets, n_draws: int) -> SetImpact:
    """Impact of sets, and its p among random sets: a large impact gets a small p.

    Parameters
    ----------
    rows
        Absolute saliency of a unit.
    sets
        The sets, one per ladder.
    null
        Random sets in their place.
    n_draws
        How many for each. Unless they are nested, a set that a tenth of the first hundred draws reaches gets no more.
    """
    n_sets = len(sets.sizes)
    medians = np.empty((rows.n, n_sets))
    by_gene: np.ndarray | float = 0.0
    for part, values in rows:
        medians[part] = summed_medians(values, sets, np.arange(len(values)), len(values))
        by_gene = by_gene + values.sum(0, dtype=np.float64)
    impact = medians.mean(0)
    every = np.arange(n_sets)
    first = n_draws if null.nested else min(_FIRST, n_draws)
    draws = _draws(rows, null, every, 0, first)
    pval, score = upper_tail(impact, draws), _standardize(impact, draws)
    more = np.flatnonzero((draws >= impact[:, None]).sum(1) < _ENOUGH)
    if first < n_draws and len(more):
        draws = np.concatenate([draws[more], _draws(rows, null, more, first, n_draws)], axis=1)
        pval[more], score[more] = upper_tail(impact[more], draws), _standardize(impact[more], draws)
    sd = medians.std(0, ddof=1) if rows.n > 1 else np.zeros(n_sets)
    return SetImpact(medians, impact, sd, score, pval, np.asarray(by_gene) / rows.n)


def difference_of_sets(
    rows: SaliencyRows, medians: np.ndarray, in_a: np.ndarray, in_b: np.ndarray, null: RandomSets, n_draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Impact in cells `in_a` minus that in cells `in_b`, against the difference for random sets.

    Returns
    -------
    Difference minus its mean among random sets, over its standard deviation there; and two-sided p.
    """
    group = np.where(in_a, 0, np.where(in_b, 1, -1))
    every = np.arange(medians.shape[1])
    sums = sum(null.medians(values, group[part], 2, which=every, first=0, stop=n_draws) for part, values in rows)
    sizes = np.array([in_a.sum(), in_b.sum()])[:, None, None]
    drawn = sums / sizes
    draws = drawn[0] - drawn[1]
    difference = medians[in_a].mean(0) - medians[in_b].mean(0)
    up, down = upper_tail(difference, draws), upper_tail(-difference, -draws)
    return _standardize(difference, draws), np.minimum(2 * np.minimum(up, down), 1.0)


def _draws(rows: SaliencyRows, null: RandomSets, which: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Sets x draws: the impact of random sets."""
    sums = sum(
        null.medians(values, np.zeros(len(values), np.int64), 1, which=which, first=first, stop=stop)[0]
        for _, values in rows
    )
    return np.asarray(sums) / rows.n


def _standardize(observed: np.ndarray, draws: np.ndarray) -> np.ndarray:
    spread = draws.std(1, ddof=1)
    return np.divide(observed - draws.mean(1), spread, out=np.zeros_like(observed), where=spread > 0)
