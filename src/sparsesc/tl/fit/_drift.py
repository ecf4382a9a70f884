"""Cells that an autoencoder was applied to, beside those it was fitted to: what drifts, and what is left over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc._values import listing
from sparsesc.door._obs_columns import read_labels
from sparsesc.stats.core._moments import group_sums
from sparsesc.stats.core._multiple import benjamini_hochberg
from sparsesc.stats.groups._shares import compare_shares

from ._reference import Reference

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

# Of the reference's cells so many leave more over than a limit; of a query of another distribution at least so many.
_BEYOND = {0.05: 0.10, 0.01: 0.05}
_SMALLER = 0.6  # mean p of residuals from which on they are smaller than the reference's; 0.5 is expected
_BEYOND_CHANCE = 3.0  # standard errors, were cells independent


@dataclass(frozen=True)
class SampleCounts:
    """Active cells of every sample."""

    n_active: np.ndarray
    """Samples x features."""
    n_cells: np.ndarray


def count_samples(
    adata: AnnData | MuData, codes: sparse.csr_matrix, sample_key: str, *, min_cells: int
) -> SampleCounts:
    """Active cells of the samples that have at least `min_cells` cells; cells without a sample are left out."""
    labels = read_labels(adata, sample_key, integers=True)
    active = codes[labels.known]
    active.data = (active.data > 0).astype(np.float64)
    counts = group_sums(active, labels.codes[labels.known], len(labels.categories)).T
    kept = labels.sizes >= min_cells
    return SampleCounts(counts[kept], labels.sizes[kept])


def drift_table(
    features: pd.DataFrame, n_obs: int, reference: Reference, samples: tuple[SampleCounts, SampleCounts] | None
) -> pd.DataFrame:
    """Every feature in the query (whose table is given) and in the reference; tested where there are samples of both.

    Raises
    ------
    ValueError
        If there are too few samples.
    """
    F = len(features)
    density, active = features["density"].to_numpy(float), features["mean_active"].to_numpy(float)
    density_0, active_0 = (reference.per_feature(name, F) for name in ("density", "mean_active"))
    half = 0.5 / np.fmin(n_obs, reference.number("n_obs"))  # of a cell, so that silent features have a ratio
    with np.errstate(divide="ignore", invalid="ignore"):
        logfc_active = np.log2(active / active_0)
    table = {
        "feature": features.index.to_numpy(dtype=object),
        "density_reference": density_0,
        "density_query": density,
        "mean_active_reference": active_0,
        "mean_active_query": active,
        "logfc_density": np.log2((density + half) / (density_0 + half)),
        "logfc_active": np.where(np.isfinite(logfc_active), logfc_active, np.nan),
        "drift": 2 * np.arcsin(np.sqrt(density)) - 2 * np.arcsin(np.sqrt(density_0)),
        "pval": np.full(F, np.nan),
        "padj": np.full(F, np.nan),
    }
    if samples is not None:
        ours, theirs = samples
        n_cells = np.concatenate([theirs.n_cells, ours.n_cells])
        in_query = np.arange(len(n_cells)) >= len(theirs.n_cells)
        test = compare_shares(np.concatenate([theirs.n_active, ours.n_active]), n_cells, in_query)
        table["pval"] = np.exp(test.log_p)
        table["padj"] = benjamini_hochberg(table["pval"])
        table |= {"drift_samples": test.effect, "se": test.se}
    order = np.lexsort((-np.nan_to_num(np.abs(table["drift"]), nan=-1.0), np.nan_to_num(table["pval"], nan=2.0)))
    return pd.DataFrame(table).iloc[order]


def residual_pvalues(residual: np.ndarray, reference: Reference) -> np.ndarray:
    """Share of the reference's unseen cells that leave as much over as each cell, that cell counted among them."""
    quantiles = reference.residual
    if not len(quantiles):
        return np.full(len(residual), np.nan)
    n = reference.number("n_held_out")
    as_much = 1 - np.searchsorted(quantiles, residual, side="left") / len(quantiles)
    return (1 + n * as_much) / (1 + n)


def query_summary(
    X: np.ndarray, residual: np.ndarray, pvalues: np.ndarray, metrics: dict[str, float], reference: Reference
) -> dict[str, Any]:
    """The query as a whole beside the reference; NaN is not known."""
    variance, squared = reference.number("variance"), float(np.square(residual, dtype=np.float64).mean())
    spread = float(np.square(X - X.mean(0, dtype=np.float64)).sum() / len(X))
    fvu = reference.number("squared_residual") / variance
    known = bool(np.isfinite(pvalues).all())
    chance = np.sqrt(1 / len(X) + 1 / reference.number("n_held_out")) if known else np.nan
    beyond = {level: float((pvalues <= level).mean()) if known else np.nan for level in _BEYOND}
    outside = any(
        share >= _BEYOND[level] and share - level > _BEYOND_CHANCE * chance * np.sqrt(level * (1 - level))
        for level, share in beyond.items()
    )
    mean_p = float(pvalues.mean())
    smaller = mean_p >= _SMALLER and mean_p - 0.5 > _BEYOND_CHANCE * chance / np.sqrt(12)
    return {
        "reference": reference.kind,
        "n_obs": len(X),
        "n_reference": int(reference.facts.get("n_held_out", 0)),
        "fvu": metrics["fvu"],
        "fvu_reference_units": squared / variance,
        "fvu_reference": reference.number("fvu") if np.isnan(fvu) else fvu,
        "residual_ratio": squared / reference.number("squared_residual"),
        "variance_ratio": spread / variance,
        "l0": metrics["l0"],
        "l0_reference": reference.number("l0"),
        "beyond_95": beyond[0.05],
        "beyond_99": beyond[0.01],
        "mean_residual_pval": mean_p,
        "drift_noise": float(1.96 * np.sqrt(1 / len(X) + 1 / reference.number("n_obs"))),
        "out_of_distribution": bool(outside),
        "embedded_differently": bool(smaller),
    }


def check_samples(ours: SampleCounts, theirs: SampleCounts, sample_key: str, min_cells: int) -> None:
    """Refuse a comparison in which nothing tells how much samples vary."""
    n_query, n_reference = len(ours.n_cells), len(theirs.n_cells)
    if n_query < 1 or n_reference < 1 or n_query + n_reference < 3:
        msg = (
            f"{sample_key!r} has {n_query} samples of at least min_cells={min_cells} cells in the query and "
            f"{n_reference} in the reference: at least one of each, and three in all, are needed, since samples are "
            "the replicates. Leave sample_key out for effect sizes without tests."
        )
        raise ValueError(msg)


def check_columns_free(adata: AnnData | MuData, columns: Iterable[str], key: str) -> None:
    """Refuse to write over columns of ``obs`` that are not ours."""
    taken = [column for column in columns if column in adata.obs.columns]
    if taken:
        msg = (
            f"key_added={key!r} would overwrite adata.obs columns {listing(taken)}, which sparsesc did not write. "
            "Choose another key_added, or rename them."
        )
        raise ValueError(msg)
