"""Features that share a label: are they one thing, parts of it, or different biology?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._obs_columns import read_columns
from sparsesc.stats.core._multiple import benjamini_hochberg
from sparsesc.stats.core._row_blocks import RowBlocks
from sparsesc.stats.features._coactivation import CoActivation, overlap_test
from sparsesc.stats.genes._pair_genes import pair_genes

from ._best_features import label_names

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

RELATIONS = ("redundant", "overlapping", "exclusive", "independent")
_ALPHA = 0.05
_FEWEST = 10  # cells on either side of a comparison of genes


@dataclass(frozen=True)
class PairGenes:
    """Expression to compare pairs of features in."""

    blocks: RowBlocks
    genes: pd.Index
    n_top: int
    max_bytes: float

    @classmethod
    def open(
        cls, adata: AnnData | MuData, layer: str | None, use_raw: bool | None, n_top: int, max_bytes: float
    ) -> PairGenes | None:
        """The matrix that the user names; without a name, none when there is nothing to read."""
        unnamed = layer is None and not use_raw
        if unnamed and (type(adata).__name__ == "MuData" or (adata.X is None and adata.raw is None)):
            return None
        matrix, genes = check.get_expression(adata, layer=layer, use_raw=use_raw)
        return cls(RowBlocks(matrix, cache_bytes=max_bytes), genes, n_top, max_bytes)

    def compare(self, first: sparse.csr_matrix, second: sparse.csr_matrix) -> tuple[list[str], list[str]]:
        """Genes that are higher in the first, and in the second, set of cells of each pair, joined by commas."""
        sides: tuple[list[str], list[str]] = ([""] * first.shape[0], [""] * first.shape[0])
        enough = np.flatnonzero((first.getnnz(axis=1) >= _FEWEST) & (second.getnnz(axis=1) >= _FEWEST))
        if len(enough):
            pair, gene, z, padj = pair_genes(
                first[enough], second[enough], self.blocks, n_top=self.n_top, max_bytes=self.max_bytes
            )
            table = pd.DataFrame(
                {"pair": enough[pair], "gene": self.genes[gene].astype(str), "up": z > 0, "z": np.abs(z)}
            )
            table = table[padj < _ALPHA].sort_values("z", ascending=False, kind="stable")
            for (where, up), names in table.groupby(["pair", "up"])["gene"]:
                sides[0 if up else 1][where] = ",".join(names)
        return sides


def sure_labels(table: pd.DataFrame, min_r: float) -> np.ndarray | None:
    """Label of each feature that holds on held-out cells, else empty; ``None`` when features have no labels."""
    if "label" not in table or "label_r_heldout" not in table:
        return None
    sure = table["label_r_heldout"].to_numpy(dtype=np.float64) >= min_r
    return np.where(sure, table["label"].astype(str).to_numpy(dtype=object), "")


def label_cells(adata: AnnData | MuData, key: str, wanted: set[str]) -> dict[str, np.ndarray]:
    """Cells of the labels that features are named after, as far as their columns are still there."""
    asked = check.get_sae_slot(adata, key)[_keys.PARAMS].get("feature_association", {})
    names = [str(name) for name in np.atleast_1d(asked.get("label_keys", [])) if str(name) in adata.obs.columns]
    columns = read_columns(adata, names)[0] if names else []
    cells = [np.flatnonzero(column.codes == i) for column in columns for i in range(len(column.categories))]
    return {label: rows for label, rows in zip(label_names(columns), cells, strict=True) if label in wanted}


def compare_same_label(
    codes: sparse.csr_matrix,
    table: pd.DataFrame,
    labels: np.ndarray,
    cells: dict[str, np.ndarray],
    *,
    score: Callable[[np.ndarray], np.ndarray],
    threshold: float,
    n_features: int,
    expression: PairGenes | None,
) -> pd.DataFrame:
    """Pairs of the clearest features of each label, compared among the cells of the label."""
    names = table.index.astype(str).to_numpy(dtype=object)
    strength = table["label_r_heldout"].to_numpy(dtype=np.float64)
    parts: list[pd.DataFrame] = []
    firsts: list[sparse.csr_matrix] = []
    seconds: list[sparse.csr_matrix] = []
    for label, rows in cells.items():
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(-strength[members], kind="stable")][:n_features]
        if len(members) < 2 or len(rows) < 3:
            continue
        inside = codes[rows][:, members]
        within = CoActivation(inside)
        one, two = np.triu_indices(len(members), 1)
        both = within.overlap(0, len(members))[one, two]
        parts.append(
            pd.DataFrame(
                {
                    "label": label,
                    "feature": names[members[one]],
                    "neighbor": names[members[two]],
                    "score": score(members)[one, two],
                    "pearson_r": CoActivation(codes[:, members]).pearson(0, len(members))[one, two],
                    "pearson_r_within": within.pearson(0, len(members))[one, two],
                    "n_both": both,
                    "n_expected": within.sizes[one] * within.sizes[two] / len(rows),
                    "pval": np.exp(overlap_test(len(rows), within.sizes[one], within.sizes[two], both)),
                }
            )
        )
        if expression is not None:
            active = sparse.csr_matrix((inside > 0).T.astype(np.float64))
            spread = sparse.csr_matrix(
                (np.ones(len(rows)), (np.arange(len(rows)), rows)), (len(rows), len(codes.indptr) - 1)
            )
            a, b = active[one] @ spread, active[two] @ spread
            common = a.multiply(b)
            for only, into in ((a - common, firsts), (b - common, seconds)):
                kept = sparse.csr_matrix(only)
                kept.eliminate_zeros()
                into.append(kept)
    if not parts:
        return pd.DataFrame()
    out = pd.concat(parts, ignore_index=True)
    out["padj"] = benjamini_hochberg(out["pval"].to_numpy())
    shown = (out["padj"] < _ALPHA).to_numpy()
    more = (out["n_both"] > out["n_expected"]).to_numpy()
    words = np.where(shown, np.where(more, RELATIONS[1], RELATIONS[2]), RELATIONS[3])
    words = np.where(out["score"] >= threshold, RELATIONS[0], words)
    out["relation"] = pd.Categorical(words, categories=list(RELATIONS))
    if expression is not None:
        genes, neighbor_genes = expression.compare(sparse.vstack(firsts, "csr"), sparse.vstack(seconds, "csr"))
        out["genes"], out["neighbor_genes"] = genes, neighbor_genes
    return out.astype({"label": str, "feature": str, "neighbor": str})
