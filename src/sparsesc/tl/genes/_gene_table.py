"""What feature_genes reports: its table, the scale of the fold changes, and the best genes of each feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc.stats.core._row_blocks import ColumnTotals
from sparsesc.stats.genes._top_genes import TopGenes

if TYPE_CHECKING:
    from anndata import AnnData

PER_TEN_THOUSAND = "per_ten_thousand"
"""Scale of counts per ten thousand of a cell."""
_SHOWN_GENES = 5


def gene_table(best: TopGenes, features: pd.Index, genes: pd.Index, *, scale: str, base: float) -> pd.DataFrame:
    """One row a pair of feature and gene."""
    columns = dict(best.columns)
    first = {
        "feature": features.astype(str).take(best.feature),
        "gene": genes.astype(str).take(best.gene),
        "score": columns.pop("score"),
        "logfc": log_fold_change(columns["mean_in"], columns["mean_out"], scale=scale, base=base),
        "pval": columns.pop("pval"),
        "padj": columns.pop("padj"),
        "rank": best.rank,
    }
    return pd.DataFrame(first | columns)


def top_gene_names(genes: pd.DataFrame, features: pd.Index) -> pd.Series:
    """The best genes of each feature among those with positive scores, joined by commas."""
    names = genes[genes["score"] > 0].groupby("feature", sort=False)["gene"]
    return names.apply(lambda g: ",".join(g[:_SHOWN_GENES])).reindex(features).fillna("").astype(str)


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
    if scale in ("counts", PER_TEN_THOUSAND):
        return np.log2((mean_in + 1) / (mean_out + 1))
    return mean_in - mean_out


def log_base(adata: AnnData) -> float:
    """Base of log1p as scanpy notes it."""
    noted = adata.uns.get("log1p")
    base = noted.get("base") if isinstance(noted, Mapping) else None
    return float(np.e if base is None else base)


def report_genes(counts: dict[str, int], n_features: int, n_significant: int, key: str, *, stored: bool) -> None:
    """Say what was tested, and how many features were not."""
    skipped = n_features - counts["n_features_tested"]
    varm = f"varm['{key}_genes'] and " if stored else ""
    _logging.info(
        f"feature_genes: {counts['n_features_tested']} features x {counts['n_genes_tested']} genes, "
        f"{n_significant} of the pairs in the table with padj < .05; added {varm}uns['{key}']['genes']"
        + (f". {skipped} features with too few active or silent cells have no genes" if skipped else "")
    )
