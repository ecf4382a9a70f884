"""Readers of one shape: which table it is, and which of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from sparsesc._values import check_choice
from sparsesc.door import _keys

from ._docs import documented
from ._table import table as read

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData


def chosen(reader: str, table: str) -> str:
    """Name of the table that a reader's option `table` stands for."""
    tables = _keys.tables_of(reader)
    check_choice(table, tables, name="table")
    return tables[table]


@documented
def history(adata: AnnData | MuData, *, key: str = "sae") -> pd.DataFrame:
    """The course of the training, epoch by epoch.

    See Also
    --------
    sparsesc.pl.training : The same as a picture.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> history = ssc.get.history(adata)
    >>> bool(history["train_fvu"].iloc[-1] < history["train_fvu"].iloc[0])
    True
    """
    return read(adata, _keys.HISTORY, key=key)


@documented
def genes(
    adata: AnnData | MuData, feature: str | int | Sequence[str | int] | None = None, key: str = "sae"
) -> pd.DataFrame:
    """The genes that go with features, best first.

    A feature that had too few cells to be tested has no rows.

    See Also
    --------
    sparsesc.get.enrichment : The gene sets of features.
    sparsesc.pl.genes : The same as a picture.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_genes(adata)
    >>> list(ssc.get.genes(adata).columns[:6])
    ['feature', 'gene', 'score', 'logfc', 'pval', 'padj']
    """
    return read(adata, _keys.GENES, feature=feature, key=key)


@documented
def enrichment(
    adata: AnnData | MuData, feature: str | int | Sequence[str | int] | None = None, key: str = "sae"
) -> pd.DataFrame:
    """The gene sets that go with features, smallest p first.

    A feature without gene scores has no rows.

    See Also
    --------
    sparsesc.get.genes : The genes of features.
    sparsesc.pl.enrichment : The same as a picture.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_genes(adata)
    >>> ssc.tl.feature_enrichment(adata, ssc.datasets.gene_sets("immune_markers"))
    >>> "B cell" in set(ssc.get.enrichment(adata)["term"])
    True
    """
    return read(adata, _keys.ENRICHMENT, feature=feature, key=key)


@documented
def association(
    adata: AnnData | MuData,
    feature: str | int | Sequence[str | int] | None = None,
    key: str = "sae",
    *,
    table: Literal["categories", "numbers", "labels"] = "categories",
) -> pd.DataFrame:
    """How features go with cell types and other columns of ``obs``.

    See Also
    --------
    sparsesc.get.annotation : What the names of features are made of.
    sparsesc.pl.association : The same as a picture.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_association(adata, "bulk_labels")
    >>> labels = ssc.get.association(adata, table="labels").set_index("category")
    >>> bool(labels.loc["CD19+ B", "f1_heldout"] > 0.5)
    True
    """
    return read(adata, chosen("association", table), feature=feature, key=key)


@documented
def annotation(
    adata: AnnData | MuData, feature: str | int | Sequence[str | int] | None = None, key: str = "sae"
) -> pd.DataFrame:
    """The evidence for the names of features: labels, gene sets and genes.

    See Also
    --------
    sparsesc.get.association : All labels, not only the best.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.annotate_features(adata, label_keys="bulk_labels")
    >>> set(ssc.get.annotation(adata)["source"])
    {'label'}
    """
    return read(adata, _keys.ANNOTATION, feature=feature, key=key)


@documented
def absorption(
    adata: AnnData | MuData, feature: str | int | Sequence[str | int] | None = None, key: str = "sae"
) -> pd.DataFrame:
    """Cell types whose feature misses cells because a more special feature takes them.

    With `feature`: the categories of which it is the best detector.

    See Also
    --------
    sparsesc.get.association : The best feature of every category.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_absorption(adata, "bulk_labels")
    >>> "CD19+ B" in set(ssc.get.absorption(adata)["category"])
    True
    """
    return read(adata, _keys.ABSORPTION, feature=feature, key=key)


@documented
def similarity(
    adata: AnnData | MuData,
    feature: str | int | Sequence[str | int] | None = None,
    key: str = "sae",
    *,
    table: Literal["neighbors", "same_label"] = "neighbors",
) -> pd.DataFrame:
    """Features that are similar to each other, and those that share a label.

    In the table ``"same_label"`` a feature may be on either side of a pair.

    See Also
    --------
    sparsesc.pl.similarity : The same as a picture.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_similarity(adata)
    >>> similar = ssc.get.similarity(adata)
    >>> bool((similar["feature"] == similar["neighbor"]).any())
    False
    """
    return read(adata, chosen("similarity", table), feature=feature, key=key)


@documented
def locality(
    adata: AnnData | MuData, feature: str | int | Sequence[str | int] | None = None, key: str = "sae"
) -> pd.DataFrame:
    """In which categories features are stronger than elsewhere.

    See Also
    --------
    sparsesc.pl.locality : The same as a picture.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_locality(adata, "bulk_labels")
    >>> ssc.get.locality(adata, "sae_0")["category"].nunique()
    10
    """
    return read(adata, _keys.LOCALITY, feature=feature, key=key)


@documented
def differential(
    adata: AnnData | MuData,
    feature: str | int | Sequence[str | int] | None = None,
    key: str = "sae",
    *,
    table: Literal["features", "samples"] = "features",
) -> pd.DataFrame:
    """Features that differ between conditions, smallest p first.

    A feature that was active in too few cells has no rows.

    See Also
    --------
    sparsesc.get.drift : Features of new cells beside those of the fit.
    sparsesc.pl.differential : The same as a picture.

    Examples
    --------
    >>> import numpy as np
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> adata.obs["donor"] = [f"donor_{i % 8}" for i in range(adata.n_obs)]
    >>> adata.obs["condition"] = ["treated" if i % 8 < 4 else "control" for i in range(adata.n_obs)]
    >>> ssc.tl.differential_features(adata, "condition", sample_key="donor")
    >>> ssc.get.differential(adata)[["condition", "reference"]].drop_duplicates().values.tolist()
    [['treated', 'control']]
    """
    return read(adata, chosen("differential", table), feature=feature, key=key)


@documented
def drift(
    adata: AnnData | MuData, feature: str | int | Sequence[str | int] | None = None, key: str = "sae"
) -> pd.DataFrame:
    """Features in new cells beside the cells of the fit, what drifts first.

    Results of the new cells as a whole are in ``uns[key]["query"]``.

    See Also
    --------
    sparsesc.pl.drift : The same as a picture.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> query = sc.datasets.pbmc68k_reduced()[:100].copy()
    >>> ssc.tl.apply_sae(query, adata)
    >>> bool(ssc.get.drift(query)["drift"].notna().all())
    True
    """
    return read(adata, _keys.DRIFT, feature=feature, key=key)


@documented
def suppression(
    adata: AnnData | MuData,
    feature: str | int | Sequence[str | int] | None = None,
    key: str = "sae",
    *,
    table: Literal["features", "transfer", "scib"] = "features",
) -> pd.DataFrame:
    """Which features were suppressed, and whether that helped.

    See Also
    --------
    sparsesc.pl.suppression : The same as a picture.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.suppress_features(adata, ["sae_1", "sae_4"])
    >>> list(ssc.get.suppression(adata).query("suppressed")["feature"])
    ['sae_1', 'sae_4']
    """
    return read(adata, chosen("suppression", table), feature=feature, key=key)


@documented
def steering(
    adata: AnnData | MuData,
    feature: str | int | Sequence[str | int] | None = None,
    key: str = "sae",
    *,
    table: Literal[
        "features", "cells", "neighbors", "doses", "landing", "effects", "gene_doses", "enrichment"
    ] = "features",
) -> pd.DataFrame:
    """What steering did to features, where the cells went, and which genes followed.

    See Also
    --------
    sparsesc.pl.steering : The same as a picture.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.steer(adata, "sae_0", mode="ablate", n_controls=1)
    >>> float(ssc.get.steering(adata, "sae_0")["after"].iloc[0])
    0.0
    """
    return read(adata, chosen("steering", table), feature=feature, key=key)


@documented
def crosscoder(
    adata: AnnData | MuData,
    *,
    table: Literal["embeddings", "cross", "counts"] = "embeddings",
    key: str = "sae",
) -> pd.DataFrame:
    """How much of each embedding a crosscoder explains, and what the embeddings share.

    Shares and kinds of single features are columns of ``uns[key]["features"]``.

    See Also
    --------
    sparsesc.pl.crosscoder : The same as a picture.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> adata.obsm["X_few"] = adata.obsm["X_pca"][:, :10].copy()
    >>> ssc.tl.fit_crosscoder(adata, use_reps=["X_pca", "X_few"], n_controls=0, max_steps=50)
    >>> list(ssc.get.crosscoder(adata)["embedding"])
    ['X_pca', 'X_few']
    """
    return read(adata, chosen("crosscoder", table), key=key)


@documented
def count_diagnostics(
    adata: AnnData,
    *,
    table: Literal["genes", "families", "summary"] = "genes",
    key: str = "count_diagnostics",
) -> pd.DataFrame:
    """Which distribution the counts of genes follow.

    See Also
    --------
    sparsesc.pl.count_diagnostics : The same as a picture.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.simulate_programs("small", n_cells=300, count_noise="poisson")
    >>> ssc.tl.count_diagnostics(adata, layer="counts")
    >>> list(ssc.get.count_diagnostics(adata, table="families").index)
    ['poisson', 'nb', 'zinb', 'lognormal']
    """
    return read(adata, chosen("count_diagnostics", table), key=key)


@documented
def latent_diagnostics(
    adata: AnnData,
    *,
    table: Literal["dimensions", "elbo", "dependence"] = "dimensions",
    key: str = "latent_diagnostics",
) -> pd.DataFrame:
    """How well a model's latent space describes cells, and what its dimensions depend on.

    See Also
    --------
    sparsesc.pl.latent_diagnostics : The same as a picture.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> class Components:  # any model with these two methods
    ...     def project(self, adata):
    ...         return adata.obsm["X_pca"][:, :5]
    ...
    ...     def get_log_likelihood(self, adata, *, latent):
    ...         return -(adata.X**2).sum(1)
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.latent_diagnostics(adata, Components(), "bulk_labels", n_permutations=99)
    >>> len(ssc.get.latent_diagnostics(adata))
    5
    """
    return read(adata, chosen("latent_diagnostics", table), key=key)


@documented
def rank_fidelity(
    adata: AnnData,
    *,
    table: Literal["summary", "pairs", "outliers", "neighbors", "neighbor_groups", "rules", "sparsity"] = "summary",
    key: str = "rank_fidelity",
) -> pd.DataFrame:
    """How well cell types stay apart when cells become ranks of genes.

    See Also
    --------
    sparsesc.pl.rank_fidelity : The same as a picture.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.simulate_programs(n_cells=200, n_genes=100, n_types=4, count_noise="poisson")
    >>> ssc.tl.rank_fidelity(adata, "type", n_boot=20)
    >>> list(ssc.get.rank_fidelity(adata)["measure"])
    ['rank', 'expression', 'expression_pca', 'expression_umap']
    """
    return read(adata, chosen("rank_fidelity", table), key=key)


@documented
def geneset_impact(
    adata: AnnData,
    unit: str | int | Sequence[str | int] | None = None,
    key: str = "saliency",
    *,
    table: Literal["impact", "contrast"] = "impact",
) -> pd.DataFrame:
    """The gene sets that drive units of a model, and how that differs between two groups of cells.

    See Also
    --------
    sparsesc.get.saliency : The genes that drive units.
    sparsesc.pl.geneset_impact : The same as a picture.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.saliency(adata, "pca", units=["PC1", "PC2"], max_cells=20)
    >>> ssc.tl.geneset_impact(adata, ssc.datasets.gene_sets("immune_markers"), n_permutations=100, min_size=3)
    >>> ssc.get.geneset_impact(adata, "PC1")["unit"].unique().tolist()
    ['PC1']
    """
    return read(adata, chosen("geneset_impact", table), feature=unit, key=key)
