"""How are all features tested against all genes? In blocks of features that never exceed a budget of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numba
import numpy as np
from scipy import sparse

from sparsesc.stats.core._row_blocks import RowBlocks

_CHUNK = 16  # features that one thread takes at once
_CHUNKS_AT_ONCE = 4


@dataclass(frozen=True)
class GeneBlock:
    """Results of a few features for all genes."""

    start: int
    stop: int
    score: np.ndarray
    """Features x genes, float64, signed."""
    log_p: np.ndarray
    """Natural logarithm of the two-sided p-values."""
    describe: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
    """Means, effect sizes and other columns of pairs of feature and gene; features are counted from `start`."""


class GeneTest(Protocol):
    """One way to compare features with genes."""

    tested: np.ndarray
    """Which features have enough cells."""
    starts: np.ndarray
    """Where the cells of each feature start."""
    sums_shape: tuple[int, ...]
    """Shape of the running sums of one feature."""

    def accumulate(
        self, row0: int, block: sparse.csr_matrix, features: slice, cursor: np.ndarray, sums: np.ndarray
    ) -> None:
        """Add a block of rows to the sums of some features."""

    def finish(self, features: slice, sums: np.ndarray) -> GeneBlock:
        """Turn sums over all rows into scores, p and what describes a pair."""


def map_gene_blocks[T](
    statistic: GeneTest,
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
        The test of every feature and gene.
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
            cursors = [statistic.starts[c].copy() for c in chunks]
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
