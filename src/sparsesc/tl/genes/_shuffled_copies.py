"""Copies of features whose cells are shuffled: the scores that gene sets have by chance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sparsesc.door import _checks as check
from sparsesc.stats.genes._gene_tests import GeneBlock, map_gene_blocks
from sparsesc.stats.genes._shuffled_sets import BoundedTest, null_sums

from ._gene_job import open_genes
from ._settings import GeneSettings

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

type Sums = tuple[np.ndarray, int]

_ENTRY_BYTES = 32  # of a copy: its codes, and the memberships that are made of them


def shuffled_copies(
    codes: sparse.csr_matrix, samples: np.ndarray | None, *, features: np.ndarray, rng: np.random.Generator
) -> sparse.csr_matrix:
    """The activations of each of these features given to cells drawn at random, within samples where there are any.

    Parameters
    ----------
    codes
        Cells x features.
    samples
        Sample of each cell, ascending; ``None``: all cells are exchanged with all.
    features
        Which to copy, with repeats.
    rng
        Draws the cells.
    """
    columns = codes.tocsc()
    n_cells = columns.shape[0]
    bounds = np.array([0, n_cells]) if samples is None else np.searchsorted(samples, np.arange(samples[-1] + 2))
    rows, values = [], []
    for feature in features:
        entries = slice(*columns.indptr[feature : feature + 2])
        active, value = columns.indices[entries], columns.data[entries]
        into = np.searchsorted(bounds, active, side="right") - 1
        for i in np.unique(into):
            mine = value[into == i]
            rows.append(bounds[i] + rng.choice(bounds[i + 1] - bounds[i], len(mine), replace=False))
            values.append(mine)
    indptr = np.r_[0, np.cumsum(np.diff(columns.indptr)[features])]
    joined = np.concatenate(values), np.concatenate(rows), indptr
    return sparse.csc_matrix(joined, shape=(n_cells, len(features))).tocsr()


def moments_of_copies(
    adata: AnnData,
    key: str,
    settings: GeneSettings,
    test: BoundedTest,
    *,
    features: np.ndarray,
    genes: pd.Index,
    n_copies: int,
    max_memory: float,
    rng: np.random.Generator,
    progress: Callable[[Iterable[Any], int], Iterable[Any]],
) -> np.ndarray:
    """What :class:`ShuffledSets` needs to know of shuffled copies, for which genes are scored as for the features.

    Parameters
    ----------
    adata, key, settings
        What the gene scores of the features were computed from, and how.
    test
        Of gene sets, prepared for `genes`.
    features
        Positions of the features that are copied, each about as often.
    genes
        The universe.
    n_copies
        How many copies in all.
    max_memory
        In GiB; with more copies than fit in a quarter of it the matrix is read again.
    rng
        Draws features and cells.
    progress
        Wraps the iteration over blocks of copies, given their number.
    """
    copied = np.concatenate([rng.permutation(features) for _ in range(-(-n_copies // len(features)))])[:n_copies]
    n_active = np.bincount(check.get_codes(adata, key).indices, minlength=int(features.max()) + 1)
    portion = (np.cumsum(n_active[copied]) * _ENTRY_BYTES // int(max(max_memory * 2**30 / 4, 1))).astype(np.int64)

    def blocks() -> Iterator[Sums]:
        for part in np.unique(portion):
            those = copied[portion == part]
            recode = partial(shuffled_copies, features=those, rng=rng)
            job = open_genes(adata, key, settings, max_memory=max_memory, with_p=False, recode=recode, recoded=those)
            columns, is_tested = job.genes.get_indexer(genes), job.statistic.tested

            def sums(block: GeneBlock, columns: np.ndarray = columns, is_tested: np.ndarray = is_tested) -> Sums:
                rows = np.flatnonzero(is_tested[block.start : block.stop])
                # float32 as the scores of the features
                return null_sums(test, block.score[np.ix_(rows, columns)].astype(np.float32)), len(rows)

            yield from map_gene_blocks(job.statistic, job.blocks, sums, max_bytes=job.max_bytes)

    parts = list(progress(blocks(), -(-n_copies // 16)))
    return np.sum([s for s, _ in parts], axis=0) / sum(n for _, n in parts)
