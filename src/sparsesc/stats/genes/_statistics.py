"""Statistics of all features against all genes, in blocks of features that never exceed a budget of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numba
import numpy as np
from scipy import sparse

from sparsesc.stats.core._row_blocks import ColumnTotals, RowBlocks, column_totals
from sparsesc.stats.core._student import log_p_two_sided

from ._contrast import Membership, add_group_sums, contrast_rows, describe_pairs, trusted_group_size
from ._correlation import add_weighted_sums, pearson_rows

_CHUNK = 16  # features that one thread takes at once
_CHUNKS_AT_ONCE = 4


class GeneBlock(Protocol):
    """What is known of a few features and all genes."""

    start: int
    stop: int
    score: np.ndarray
    """Features x genes, float64, signed."""
    log_p: np.ndarray
    """Natural logarithm of the two-sided p-values."""

    def describe(self, features: np.ndarray, genes: np.ndarray) -> dict[str, np.ndarray]:
        """Means, effect sizes and other columns of chosen pairs; features are counted from `start`."""


class Statistic(Protocol):
    """One way to compare features with genes."""

    tested: np.ndarray
    """Which features have enough cells."""

    @property
    def sums_shape(self) -> tuple[int, ...]:
        """Shape of the running sums of one feature."""

    def accumulate(
        self, row0: int, block: sparse.csr_matrix, features: slice, cursor: np.ndarray, sums: np.ndarray
    ) -> None:
        """Add a block of rows to the sums of some features."""

    def finish(self, features: slice, sums: np.ndarray) -> GeneBlock:
        """Turn sums over all rows into statistics."""

    def first_entries(self, features: slice) -> np.ndarray:
        """Where the cells of each feature start."""


@dataclass
class ContrastBlock:
    """Welch's t of strong against silent cells."""

    start: int
    stop: int
    score: np.ndarray
    log_p: np.ndarray
    _sums: np.ndarray
    _contrast: Contrast

    def describe(self, features: np.ndarray, genes: np.ndarray) -> dict[str, np.ndarray]:
        """Means and Cohen's d: the difference of means over the root of the mean of both variances."""
        members, totals = self._contrast.members, self._contrast.totals
        out = np.empty((len(features), 5))
        here = slice(self.start, self.stop)
        describe_pairs(
            self._sums, members.n_strong[here], members.n_silent[here], members.sampled,
            totals.total, totals.squares, self._contrast.trusted, features, genes, out,
        )  # fmt: skip
        mean_in, var_in, mean_out, var_out, log_p = out.T
        spread = np.sqrt((var_in + var_out) / 2)
        effect = np.divide(mean_in - mean_out, spread, out=np.zeros_like(spread), where=spread > 0)
        columns = {"mean_in": mean_in, "mean_out": mean_out, "effect_size": effect}
        return columns | ({"pval_parametric": np.exp(log_p)} if self._contrast.relabel else {})


class Contrast:
    """Welch's t of the strongly active against the silent cells of each feature.

    Parameters
    ----------
    members
        The cells of both sides.
    totals
        Sums over all cells.
    min_cells
        Features with fewer cells on a side are not tested.
    skew_guard
        A group with fewer cells than this times the squared skewness of a gene is too small to estimate its own
        variance: it then gets at least the variance of the other group. 0 leaves plain Welch.
    relabel
        Take p from random relabelling of cells rather than from the t distribution.
    with_p
        Whether p is wanted at all: without it, all p are 1.
    """

    def __init__(
        self,
        members: Membership,
        totals: ColumnTotals,
        *,
        min_cells: int,
        skew_guard: float,
        relabel: bool,
        with_p: bool = True,
    ) -> None:
        self.members = members
        self.totals = totals
        self.tested = members.tested(min_cells)
        self.sums_shape: tuple[int, ...] = (2, len(totals.total), 2)
        self.relabel = relabel
        self._with_p = with_p
        self.trusted = trusted_group_size(totals, skew_guard)

    def first_entries(self, features: slice) -> np.ndarray:
        """Where the cells of each feature start."""
        return self.members.indptr[:-1][features].copy()

    def accumulate(
        self, row0: int, block: sparse.csr_matrix, features: slice, cursor: np.ndarray, sums: np.ndarray
    ) -> None:
        """Add a block of rows to the sums of some features."""
        ends = np.where(self.tested[features], self.members.indptr[1:][features], -1)
        add_group_sums(
            row0, block.indptr, block.indices, block.data, cursor, ends, self.members.rows, self.members.group, sums
        )

    def finish(self, features: slice, sums: np.ndarray) -> ContrastBlock:
        """Turn sums over all rows into statistics."""
        t = np.empty((len(sums), len(self.totals.total)))
        log_p = np.empty_like(t)
        members = self.members
        contrast_rows(
            sums, members.n_strong[features], members.n_silent[features], members.sampled, self.totals.total,
            self.totals.squares, self.totals.skewness, self.trusted, self.relabel, self._with_p, t, log_p,
        )  # fmt: skip
        return ContrastBlock(features.start, features.stop, t, log_p, sums, self)


@dataclass
class CorrelationBlock:
    """Pearson r over all cells."""

    start: int
    stop: int
    score: np.ndarray
    log_p: np.ndarray
    _sums: np.ndarray
    _correlation: Correlation

    def describe(self, features: np.ndarray, genes: np.ndarray) -> dict[str, np.ndarray]:
        """Means in active and in silent cells; the effect size is r itself."""
        total = self._sums[features, genes, 1]
        n_active = self._correlation.n_active[self.start : self.stop][features]
        mean_out = (self._correlation.totals.total[genes] - total) / np.maximum(
            self._correlation.totals.n - n_active, 1
        )
        r = self.score[features, genes]
        columns = {"mean_in": total / n_active, "mean_out": mean_out, "effect_size": r}
        if not self._correlation.relabel:
            return columns
        df = self._correlation.totals.n - 2
        return columns | {"pval_parametric": np.exp(log_p_two_sided(r * np.sqrt(df / np.maximum(1 - r**2, 1e-16)), df))}


class Correlation:
    """Pearson r of activation and expression over all cells.

    Parameters
    ----------
    codes
        Cells x features.
    totals
        Sums over all cells.
    min_cells
        Features active in fewer cells, or silent in none, are not tested.
    relabel
        Take p from shuffling cells rather than from the t distribution.
    with_p
        Whether p is wanted at all: without it, all p are 1.
    """

    def __init__(
        self, codes: sparse.csr_matrix, totals: ColumnTotals, *, min_cells: int, relabel: bool, with_p: bool = True
    ) -> None:
        csc = codes.tocsc(copy=True)
        csc.eliminate_zeros()
        csc.sort_indices()
        self.totals = totals
        self.n_active = np.diff(csc.indptr).astype(np.int64)
        self._indptr = csc.indptr.astype(np.int64)
        self._rows = csc.indices.astype(np.int32)
        self._activation = csc.data
        self.relabel = relabel
        self._with_p = with_p
        self._activations = column_totals(csc)
        self._mean, self._sd = self._activations.mean, np.sqrt(self._activations.variance)
        self.tested = (self.n_active >= min_cells) & (self._sd > 0)
        self.sums_shape: tuple[int, ...] = (len(totals.total), 2)

    def first_entries(self, features: slice) -> np.ndarray:
        """Where the cells of each feature start."""
        return self._indptr[:-1][features].copy()

    def accumulate(
        self, row0: int, block: sparse.csr_matrix, features: slice, cursor: np.ndarray, sums: np.ndarray
    ) -> None:
        """Add a block of rows to the sums of some features."""
        ends = np.where(self.tested[features], self._indptr[1:][features], -1)
        add_weighted_sums(
            row0, block.indptr, block.indices, block.data, cursor, ends, self._rows, self._activation, sums
        )

    def finish(self, features: slice, sums: np.ndarray) -> CorrelationBlock:
        """Turn sums over all rows into statistics."""
        r = np.empty((len(sums), len(self.totals.total)))
        log_p = np.empty_like(r)
        pearson_rows(
            sums, self._mean[features], self._sd[features], self.totals.n,
            self.totals.mean, np.sqrt(self.totals.variance), self._activations.skewness[features],
            self.totals.skewness, self.relabel, self._with_p, r, log_p,
        )  # fmt: skip
        return CorrelationBlock(features.start, features.stop, r, log_p, sums, self)


def map_gene_blocks[T](
    statistic: Statistic,
    blocks: RowBlocks,
    reduce: Callable[[GeneBlock], T],
    *,
    max_bytes: float,
    threads: int | None = None,
) -> Iterator[T]:
    """Compute all statistics, a few features at a time, and yield what `reduce` makes of each block, in order.

    Parameters
    ----------
    statistic
        What to compute.
    blocks
        Cells x genes. Read once when it is in memory or when the sums of all features fit in `max_bytes`, otherwise
        once for every set of features that does.
    reduce
        Called from worker threads, with blocks of at most 16 features, some of which may be untested.
    max_bytes
        Memory for running sums.
    threads
        Defaults to numba's number of threads. Results do not depend on it: one thread sums one feature.
    """
    n_features = len(statistic.tested)
    threads = threads or numba.get_num_threads()
    per_feature = 8 * int(np.prod(statistic.sums_shape))
    at_once = _CHUNK * _CHUNKS_AT_ONCE * threads
    if not blocks.in_memory:
        at_once = max(at_once, int(max_bytes // per_feature) // _CHUNK * _CHUNK)
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, n_features, at_once):
            last = min(first + at_once, n_features)
            chunks = [slice(i, min(i + _CHUNK, last)) for i in range(first, last, _CHUNK)]
            sums = [np.zeros((c.stop - c.start, *statistic.sums_shape)) for c in chunks]
            cursors = [statistic.first_entries(c) for c in chunks]
            for row0, block in blocks:
                adding = [
                    pool.submit(statistic.accumulate, row0, block, c, cursor, s)
                    for c, cursor, s in zip(chunks, cursors, sums, strict=True)
                ]
                for job in adding:
                    job.result()
            finishing = [
                pool.submit(lambda c, s: reduce(statistic.finish(c, s)), c, s)
                for c, s in zip(chunks, sums, strict=True)
            ]
            sums.clear()
            for finished in finishing:
                yield finished.result()
