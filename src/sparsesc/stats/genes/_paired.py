"""Does a gene differ between strong and silent cells in every sample? A paired t with samples as replicates.

Cells come sorted by sample, so that one pass needs the sums of a single sample at a time: they are turned into a
difference of means, and added to the sums over samples, when the next sample begins.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled
from sparsesc.stats.core._moments import group_sums
from sparsesc.stats.core._row_blocks import RowBlocks
from sparsesc.stats.core._student import LOG_2, log_normal_tail, log_p_t, t_of_normal

from ._gene_tests import GeneBlock
from ._strong_cells import STRONG, Membership
from ._welch import MAX_T, ROUNDING, trusted_group_size

# Running sums of a feature and a gene: expression in the strong and in the other active cells of the present sample;
# over finished samples, the difference of means, its square, the mean in strong cells, and the variance that the
# difference has by the draw of cells alone.
_IN_STRONG, _IN_OTHER, _DIFFERENCE, _SQUARE, _MEAN_IN, _BY_DRAW = range(6)


@compiled
def _finish_sample(
    sums: np.ndarray,
    n_strong: int,
    n_silent: int,
    slope: float,
    counts: bool,
    total: np.ndarray,
    magnitude: np.ndarray,
    variance: np.ndarray,
) -> None:
    """Turn the sums of one sample into a difference of means and clear them; nothing is added unless it `counts`."""
    for g in range(sums.shape[1]):
        if counts:
            strong = sums[_IN_STRONG, g]
            silent = total[g] - strong - sums[_IN_OTHER, g]
            if abs(silent) <= ROUNDING * magnitude[g]:  # no silent cell expresses it: only rounding is left
                silent = 0.0
            mean_in = strong / n_strong
            difference = mean_in - silent / n_silent - slope * (strong + silent) / (n_strong + n_silent)
            sums[_DIFFERENCE, g] += difference
            sums[_SQUARE, g] += difference * difference
            sums[_MEAN_IN, g] += mean_in
            sums[_BY_DRAW, g] += variance[g] * (1.0 / n_strong + 1.0 / n_silent)
        sums[_IN_STRONG, g] = 0.0
        sums[_IN_OTHER, g] = 0.0


@compiled
def _add_rows(
    row0: int,
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    cursor: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    rows: np.ndarray,
    group: np.ndarray,
    sample: np.ndarray,
    n_strong: np.ndarray,
    n_silent: np.ndarray,
    slopes: np.ndarray,
    counts: np.ndarray,
    totals: np.ndarray,
    magnitudes: np.ndarray,
    variances: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add a block of rows to ``sums`` (features x 6 x genes), moving the cursors."""
    stop = row0 + len(indptr) - 1
    for f in range(len(cursor)):
        p = cursor[f]
        while p < ends[f] and rows[p] < stop:
            if p > starts[f]:
                before = sample[rows[p - 1]]
                if before != sample[rows[p]]:
                    _finish_sample(
                        sums[f], n_strong[f, before], n_silent[f, before], slopes[f, before], counts[f, before],
                        totals[before], magnitudes[before], variances[before],
                    )  # fmt: skip
            side = sums[f, _IN_STRONG if group[p] == STRONG else _IN_OTHER]
            row = rows[p] - row0
            for i in range(indptr[row], indptr[row + 1]):
                side[indices[i]] += data[i]
            p += 1
        cursor[f] = p


@compiled
def _paired_rows(
    sums: np.ndarray,
    n_samples: np.ndarray,
    n_cells: np.ndarray,
    trusted_n: np.ndarray,
    tested: np.ndarray,
    with_p: bool,
    t: np.ndarray,
    log_p: np.ndarray,
) -> None:
    """Paired t; with fewer cells than ``trusted_n`` at most as rare as the difference is for cells drawn at random."""
    for f in range(len(sums)):
        for g in range(sums.shape[2]):
            t[f, g], log_p[f, g] = 0.0, 0.0
            total, squares = sums[f, _DIFFERENCE, g], sums[f, _SQUARE, g]
            if not tested[f] or total == 0.0:
                continue
            n = float(n_samples[f])
            mean = total / n
            deviations = max(squares - total * mean, 0.0)
            error = math.sqrt(deviations / (n - 1.0) / n) if deviations > ROUNDING * squares else 0.0
            size = abs(mean) / max(error, abs(mean) / MAX_T)
            if n_cells[f] < trusted_n[g] and sums[f, _BY_DRAW, g] > 0.0:
                z = abs(total) / math.sqrt(sums[f, _BY_DRAW, g])
                # t of the same tail is never below z
                if size > z and log_p_t(size, n - 1.0) < LOG_2 + log_normal_tail(z):
                    size = t_of_normal(z, n - 1.0)
            t[f, g] = math.copysign(size, mean)
            if with_p:
                log_p[f, g] = log_p_t(t[f, g], n - 1.0)


class PairedTest:
    """Paired t over samples: strong against silent cells of each feature within samples.

    Parameters
    ----------
    members
        Strong and other active cells of each feature, of cells that are sorted by sample.
    samples
        Sample of each cell, ``0 ...``, ascending.
    blocks
        The same cells x genes.
    min_cells
        Features with fewer cells on a side, over all samples, are not tested.
    min_cells_per_sample
        A sample with fewer cells on a side of a feature is left out for that feature.
    min_samples
        Features with fewer samples than this left are not tested.
    skew_guard
        Where a side has fewer cells, over all samples, than this times the squared skewness of a gene, the samples do
        not tell how far their differences vary: a rare gene that all strong cells miss differs by nearly the same in
        every sample. The difference must then also be too large for strong cells that are drawn at random in each
        sample (normal approximation): t is at most the one that is as rare as that.
    with_p
        Whether p is needed: without it, all p are 1.
    slopes
        Of residuals: what :func:`~sparsesc.stats.genes._residuals.depth_slopes` says of each feature and sample.
    """

    def __init__(
        self,
        members: Membership,
        samples: np.ndarray,
        blocks: RowBlocks,
        *,
        min_cells: int,
        min_cells_per_sample: int,
        min_samples: int,
        skew_guard: float = 25.0,
        with_p: bool = True,
        slopes: np.ndarray | None = None,
    ) -> None:
        n_features, n_samples = len(members.n_strong), int(samples.max(initial=-1)) + 1
        feature = np.repeat(np.arange(n_features), np.diff(members.indptr))
        place = feature * n_samples + samples[members.rows]
        shape, size = (n_features, n_samples), n_features * n_samples
        strong = np.bincount(place[members.group == STRONG], minlength=size).reshape(shape)
        active = np.bincount(place, minlength=size).reshape(shape)
        silent = np.bincount(samples, minlength=n_samples) - active
        self._members, self._samples = members, samples
        self._n_strong, self._n_silent = strong, silent
        self._counts = (strong >= min_cells_per_sample) & (silent >= min_cells_per_sample)
        self._n_samples = self._counts.sum(1)
        self._n_fewest = np.minimum(*((side * self._counts).sum(1) for side in (strong, silent)))
        self._trusted_n = trusted_group_size(blocks.totals, skew_guard)
        self._by_sample = _sample_totals(blocks, samples, n_samples)
        self._with_p = with_p
        self._slopes = np.zeros(shape) if slopes is None else slopes
        self.tested = members.tested(min_cells) & (self._n_samples >= min_samples)
        self.starts = members.indptr[:-1]
        self.sums_shape: tuple[int, ...] = (6, blocks.shape[1])
        self._ends = np.where(self.tested, members.indptr[1:], -1)

    def accumulate(
        self, row0: int, block: sparse.csr_matrix, features: slice, cursor: np.ndarray, sums: np.ndarray
    ) -> None:
        """Add a block of rows to the sums of some features."""
        members = self._members
        _add_rows(
            row0, block.indptr, block.indices, block.data, cursor, self.starts[features], self._ends[features],
            members.rows, members.group, self._samples, self._n_strong[features], self._n_silent[features],
            self._slopes[features], self._counts[features], *self._by_sample, sums,
        )  # fmt: skip

    def finish(self, features: slice, sums: np.ndarray) -> GeneBlock:
        """Turn sums over all rows into t, p and what describes a pair."""
        for i, feature in enumerate(range(features.start, features.stop)):
            if self.tested[feature]:
                last = self._samples[self._members.rows[self._ends[feature] - 1]]
                at = feature, last
                _finish_sample(
                    sums[i], self._n_strong[at], self._n_silent[at], self._slopes[at], self._counts[at],
                    *(values[last] for values in self._by_sample),
                )  # fmt: skip
        t = np.empty((len(sums), sums.shape[2]))
        log_p = np.empty_like(t)
        n_samples, tested = self._n_samples[features], self.tested[features]
        _paired_rows(sums, n_samples, self._n_fewest[features], self._trusted_n, tested, self._with_p, t, log_p)
        return GeneBlock(features.start, features.stop, t, log_p, partial(_describe, np.maximum(n_samples, 1), sums))


def _describe(
    n_samples: np.ndarray, sums: np.ndarray, features: np.ndarray, genes: np.ndarray
) -> dict[str, np.ndarray]:
    """Means over samples of both sides; the effect size is the mean difference over its standard deviation."""
    n = n_samples[features]
    difference = sums[features, _DIFFERENCE, genes] / n
    mean_in = sums[features, _MEAN_IN, genes] / n
    spread = np.sqrt(np.maximum(sums[features, _SQUARE, genes] / n - difference**2, 0.0) * n / (n - 1))
    smallest = np.maximum(np.abs(difference) * np.sqrt(n) / MAX_T, np.finfo(np.float64).tiny)
    effect = difference / np.maximum(spread, smallest)
    return {"mean_in": mean_in, "mean_out": mean_in - difference, "effect_size": effect, "n_samples": n}


def _sample_totals(blocks: RowBlocks, samples: np.ndarray, n_samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every gene over the cells of every sample (samples x genes): sum, sum of absolute values, variance."""
    totals = np.zeros((n_samples, blocks.shape[1]))
    squares = np.zeros_like(totals)
    magnitudes = totals if blocks.totals.minimum >= 0 else np.zeros_like(totals)
    for row0, block in blocks:
        here = samples[row0 : row0 + block.shape[0]]
        block = block.astype(np.float64)
        totals += group_sums(block, here, n_samples).T
        squares += group_sums(block.power(2), here, n_samples).T
        if magnitudes is not totals:
            magnitudes += group_sums(abs(block), here, n_samples).T
    n = np.bincount(samples, minlength=n_samples)[:, None]
    deviations = squares - totals**2 / np.maximum(n, 1)
    variances = np.where(deviations > ROUNDING * squares, deviations, 0.0) / np.maximum(n - 1, 1)
    return totals, magnitudes, variances
