"""From an AnnData to the tests of its features and genes; shared by feature_genes and feature_enrichment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc._values import check_memory
from sparsesc.door import _checks as check
from sparsesc.stats.core._row_blocks import RowBlocks
from sparsesc.stats.genes._gene_tests import GeneTest
from sparsesc.stats.genes._paired import PairedTest
from sparsesc.stats.genes._pearson import PearsonTest
from sparsesc.stats.genes._residuals import CountRows, PearsonResiduals, PerTenThousand, depth_slopes
from sparsesc.stats.genes._strong_cells import strong_and_silent
from sparsesc.stats.genes._welch import WelchTest

from ._cells import choose_cells, thinned_layer
from ._settings import GeneSettings

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class GeneJob:
    """Everything that a pass over features and genes needs."""

    statistic: GeneTest
    blocks: RowBlocks
    """The values that are tested."""
    genes: pd.Index
    matrix: str
    """What messages call the matrix that was read."""
    max_bytes: float
    counts: CountRows | None
    """Where residuals of counts are tested: these counts."""
    samples: np.ndarray | None
    """Sample of each cell, where samples are the replicates."""
    _test: Callable[..., GeneTest]

    @property
    def expression(self) -> np.ndarray:
        """Mean expression of every gene."""
        return (self.blocks if self.counts is None else self.counts).totals.mean

    def per_ten_thousand(self) -> tuple[GeneTest, RowBlocks]:
        """The same comparison of counts per ten thousand of a cell, without p-values, and these values."""
        assert self.counts is not None
        blocks = RowBlocks(PerTenThousand(self.counts), cache_bytes=self.max_bytes, name=self.matrix)
        return self._test(blocks, False), blocks

    @property
    def varies(self) -> np.ndarray:
        """Positions of genes that are tested."""
        return np.flatnonzero(self.blocks.totals.varies)


def open_genes(
    adata: AnnData,
    key: str,
    settings: GeneSettings,
    *,
    max_memory: float,
    with_p: bool = True,
    choosing: bool = False,
    recode: Callable[[sparse.csr_matrix, np.ndarray | None], sparse.csr_matrix] | None = None,
    recoded: np.ndarray | None = None,
) -> GeneJob:
    """Codes, expression matrix and the test between them.

    Without `with_p` only scores are computed. With `choosing` the cells are those that a split by cells leaves for
    choosing, rather than those to test on. `recode` makes copies of features (`recoded`, by position) of the codes of
    these cells, given the sample of each, if there are samples. A quarter of `max_memory` (GiB) is for a copy of the
    matrix, one for running sums, one for p-values.
    """
    layer = thinned_layer(adata, settings.layer) if settings.split == "counts" else settings.layer
    matrix, genes = check.get_expression(adata, layer=layer, use_raw=settings.use_raw)
    codes = check.get_codes(adata, key)
    name = f"adata.layers[{layer!r}]" if layer else "adata.raw.X" if settings.use_raw else "adata.X"
    share = check_memory(max_memory) / 4
    cells = choose_cells(adata, key, settings, choosing=choosing)
    if cells.rows is not None:
        codes = codes[cells.rows]
        matrix = cells.take(matrix, name)
    thresholds = check.get_on_thresholds(adata, key) if settings.quantile is None else None
    if recode is not None:
        codes = recode(codes, cells.samples)
        thresholds = None if thresholds is None else thresholds[recoded]
    counts = CountRows(matrix, name=name) if settings.split == "counts" else None
    if counts is not None and not counts.are_counts:
        counts = None
    values = matrix if counts is None else PearsonResiduals(counts)
    blocks = RowBlocks(values, cache_bytes=share, name=name)
    make = partial(_make_test, codes, thresholds, cells.samples, settings)
    depth = None if counts is None else counts.of_cell
    return GeneJob(make(blocks, with_p, depth), blocks, genes, name, share, counts, cells.samples, make)


def _make_test(
    codes: sparse.csr_matrix,
    thresholds: np.ndarray | None,
    samples: np.ndarray | None,
    settings: GeneSettings,
    blocks: RowBlocks,
    with_p: bool,
    depth: np.ndarray | None = None,
) -> GeneTest:
    """The test of values; of residuals with the `depth` of each cell."""
    min_cells, skew_guard = settings.min_cells, settings.skew_guard
    relabel = settings.pvalues == "permutation"
    if settings.method == "correlation":
        return PearsonTest(codes, blocks.totals, min_cells=min_cells, relabel=relabel, with_p=with_p)
    members = strong_and_silent(
        codes,
        quantile=settings.quantile,
        thresholds=thresholds,
        min_cells=min_cells,
        n_silent=settings.n_silent,
        rng=np.random.default_rng(settings.seed),
    )
    slopes = None
    if depth is not None:
        slopes = depth_slopes(members, depth, samples, 1 if samples is None else int(samples.max(initial=-1)) + 1)
    if samples is None:
        return WelchTest(
            members,
            blocks.totals,
            min_cells=min_cells,
            skew_guard=skew_guard,
            relabel=relabel,
            with_p=with_p,
            slopes=slopes,
        )
    return PairedTest(
        members,
        samples,
        blocks,
        min_cells=min_cells,
        min_cells_per_sample=settings.min_cells_per_sample,
        min_samples=settings.min_samples,
        skew_guard=skew_guard,
        with_p=with_p,
        slopes=slopes,
    )
