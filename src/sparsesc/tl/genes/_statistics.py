"""From an AnnData to the statistics of its features and genes; shared by feature_genes and feature_enrichment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc.door import _checks as check
from sparsesc.stats.core._row_blocks import ColumnTotals, RowBlocks
from sparsesc.stats.genes._contrast import strong_and_silent
from sparsesc.stats.genes._sample_contrast import SampleContrast
from sparsesc.stats.genes._statistics import Contrast, Correlation, Statistic

from ._cells import choose_cells, normalised, thinned_layer

if TYPE_CHECKING:
    from anndata import AnnData

METHODS = ("contrast", "correlation")
PVALUES = ("permutation", "parametric")
SPLITS = ("cells", "counts")
_GIB = 2**30


@dataclass(frozen=True)
class GeneSettings:
    """What decides every statistic of feature x gene; stored, so that it can be computed again."""

    method: str
    pvalues: str
    layer: str
    """Empty: no layer."""
    use_raw: bool
    quantile: float
    min_cells: int
    n_silent: int
    """0: all silent cells."""
    skew_guard: float
    seed: int
    """Draws the silent cells, where they are sampled, and the held-out cells, where they are drawn."""
    split: str = ""
    """Empty: none."""
    holdout: float | str = ""
    """Empty: the cells that the fit held out; a share; or a column of ``obs``."""
    sample_key: str = ""
    """Empty: cells are the replicates."""
    min_samples: int = 3
    min_cells_per_sample: int = 5

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> GeneSettings:
        """From what came back from a file, where numbers may be arrays."""
        values = {name: np.asarray(stored[name]).item() for name in cls.__dataclass_fields__ if name in stored}
        return cls(**values)

    def store(self) -> dict[str, Any]:
        """As plain values that a file can hold."""
        return asdict(self)


@dataclass(frozen=True)
class GeneJob:
    """Everything that a pass over features and genes needs."""

    statistic: Statistic
    blocks: RowBlocks
    genes: pd.Index
    max_bytes: float

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
) -> GeneJob:
    """Codes, expression matrix and the statistic between them.

    Without `with_p` only scores are computed. With `choosing` the cells are those that a split by cells leaves for
    choosing, rather than those to test on. `recode` makes other features of the codes of these cells, given the sample
    of each, if there are samples. A quarter of `max_memory` (GiB) is for a copy of the matrix, one for running sums,
    one for p-values.
    """
    layer = thinned_layer(adata, settings.layer) if settings.split == "counts" else settings.layer
    matrix, genes = check.get_expression(adata, layer=layer or None, use_raw=settings.use_raw)
    codes = check.get_codes(adata, key)
    what = f"adata.layers[{layer!r}]" if layer else "adata.raw.X" if settings.use_raw else "adata.X"
    share = max_memory * _GIB / 4
    if settings.split == "counts":
        matrix = normalised(matrix, what)
    cells = choose_cells(
        adata,
        key,
        holdout=settings.holdout if settings.split == "cells" else None,
        sample_key=settings.sample_key,
        seed=settings.seed,
        choosing=choosing,
    )
    if cells.rows is not None:
        codes = codes[cells.rows]
        matrix = cells.take(matrix, what)
    if recode is not None:
        codes = recode(codes, cells.samples)
    blocks = RowBlocks(matrix, cache_bytes=share, name=what)
    relabel = settings.pvalues == "permutation"
    statistic: Statistic
    if settings.method == "correlation":
        statistic = Correlation(codes, blocks.totals, min_cells=settings.min_cells, relabel=relabel, with_p=with_p)
        return GeneJob(statistic, blocks, genes, share)
    members = strong_and_silent(
        codes,
        quantile=settings.quantile,
        min_cells=settings.min_cells,
        n_silent=settings.n_silent or None,
        rng=np.random.default_rng(settings.seed),
    )
    if cells.samples is not None:
        statistic = SampleContrast(
            members,
            cells.samples,
            blocks,
            min_cells=settings.min_cells,
            min_cells_per_sample=settings.min_cells_per_sample,
            min_samples=settings.min_samples,
            skew_guard=settings.skew_guard,
            with_p=with_p,
        )
    else:
        statistic = Contrast(
            members,
            blocks.totals,
            min_cells=settings.min_cells,
            skew_guard=settings.skew_guard,
            relabel=relabel,
            with_p=with_p,
        )
    return GeneJob(statistic, blocks, genes, share)


def scale_of(totals: ColumnTotals) -> str:
    """``"log1p"``, ``"counts"`` (not logarithmic) or ``"scaled"`` (negative values), by the range of the values."""
    if totals.minimum < 0:
        return "scaled"
    # log1p of counts per million stays below 14 and log2 of them below 20
    if totals.maximum > 30 or (totals.whole_numbers and totals.maximum > 1):
        return "counts"
    return "log1p"


def log_fold_change(mean_in: np.ndarray, mean_out: np.ndarray, *, scale: str, base: float) -> np.ndarray:
    """Log2 fold change of one mean over another, as far as the scale of the matrix allows one."""
    if scale == "log1p":
        return (mean_in - mean_out) * np.log2(base)
    if scale == "counts":
        return np.log2((mean_in + 1) / (mean_out + 1))
    return mean_in - mean_out
