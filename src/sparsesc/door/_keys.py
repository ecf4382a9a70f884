"""Every slot that sparsesc reads or writes, spelled once.

A sparse autoencoder is stored under one ``key`` (default ``"sae"``); functions ask :func:`sae_keys` where things are.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_KEY = "sae"
SCHEMA_VERSION = 1

PARAMS = "params"
WEIGHTS = "weights"
HISTORY = "history"
METRICS = "metrics"
FEATURES = "features"
ASSOCIATION = "association"
ASSOCIATION_NUMERIC = "association_numeric"
LABELS = "labels"
GENES = "genes"
ENRICHMENT = "enrichment"
ANNOTATION = "annotation"
DIFFERENTIAL = "differential"
DIFFERENTIAL_SAMPLES = "differential_samples"
SIMILARITY = "similarity"
SIMILARITY_MATRIX = "similarity_matrix"
SAME_LABEL = "same_label"
LOCALITY = "locality"
ABSORPTION = "absorption"
STEERING = "steering"
SUPPRESSION = "suppression"
STABILITY = "stability"
VALIDATION = "validation_obs"
REFERENCE = "reference"
QUERY = "query"
DRIFT = "drift"
BLOCKS = "blocks"
CROSSCODER = "crosscoder"

SALIENCY_KEY = "saliency"
UNITS = "units"
INPUTS = "inputs"
SALIENT_CELLS = "cells"
PAIRS = "pairs"
NODE_WEIGHTS = "node_weights"
INPUT_VALUES = "values"
IMPACT = "impact"
IMPACT_CONTRAST = "impact_contrast"

COUNT_TABLES = ("genes", "families", "summary")
LATENT_TABLES = ("elbo", "dimensions", "dependence")
SUPPRESSION_TABLES = ("features", "transfer", "scib")
RANK_FIDELITY_TABLES = ("summary", "pairs", "outliers", "neighbors", "neighbor_groups", "rules", "sparsity")

CROSSCODER_TABLES = ("embeddings", "cross", "counts")

FEATURE_COLUMNS = ("density", "mean_active", "max", "n_cells", "dead")
ASSOCIATION_COLUMNS = (
    "feature",
    "key",
    "category",
    "pearson_r",
    "auroc",
    "f1",
    "mean_in",
    "mean_out",
    "pval",
    "padj",
)
GENES_COLUMNS = ("feature", "gene", "score", "logfc", "pval", "padj")
ENRICHMENT_COLUMNS = ("feature", "term", "score", "pval", "padj", "n_genes", "genes")
DIFFERENTIAL_COLUMNS = (
    "feature",
    "group",
    "measure",
    "condition",
    "reference",
    "score",
    "effect",
    "logfc",
    "mean_condition",
    "mean_reference",
    "pval",
    "padj",
)
SIMILARITY_COLUMNS = (
    "feature",
    "neighbor",
    "rank",
    "score",
    "pearson_r",
    "jaccard",
    "n_both",
    "n_expected",
    "pval",
    "padj",
    "decoder_cosine",
)
SALIENCY_COLUMNS = ("unit", "gene", "saliency", "signed")
IMPACT_COLUMNS = ("unit", "term", "impact", "sd", "scaled", "score", "pval", "padj", "n_genes", "genes")
IMPACT_CONTRAST_COLUMNS = ("unit", "term", "impact_a", "impact_b", "difference", "score", "pval", "padj")
DRIFT_COLUMNS = (
    "feature",
    "density_reference",
    "density_query",
    "mean_active_reference",
    "mean_active_query",
    "logfc_density",
    "logfc_active",
    "drift",
    "pval",
    "padj",
)
LOCALITY_COLUMNS = ("feature", "category", "mean_in", "mean_out", "statistic", "pval", "padj")
REPRESENTATION_COLUMNS = (
    "representation",
    "label_key",
    "metric",
    "value",
    "null_mean",
    "null_sd",
    "pval",
    "n_features",
    "n_labels",
    "n_cells",
)


@dataclass(frozen=True)
class SaeKeys:
    """Slots of one sparse autoencoder in an AnnData."""

    key: str
    """Entry of ``uns`` that holds parameters, weights and tables."""
    codes: str
    """Entry of ``obsm``: cells x features, CSR."""
    genes: str
    """Entry of ``varm``: genes x features."""
    joint: str
    """Entry of ``obsm``: several embeddings side by side, cells x dimensions."""
    residual: str
    """Column of ``obs``: what of a query cell the features leave over."""
    residual_pval: str
    """Column of ``obs``: how often a cell of the reference has as much left over."""

    def feature_names(self, n_features: int) -> list[str]:
        """Stable names, ``{key}_0 ...``."""
        return [f"{self.key}_{i}" for i in range(n_features)]


def sae_keys(key: str = DEFAULT_KEY) -> SaeKeys:
    """Slots that belong to ``key``."""
    return SaeKeys(
        key=key,
        codes=f"X_{key}",
        genes=f"{key}_genes",
        joint=f"X_{key}_joint",
        residual=f"{key}_residual",
        residual_pval=f"{key}_residual_pval",
    )


@dataclass(frozen=True)
class RankKeys:
    """Slots of one rank encoding in an AnnData."""

    key: str
    """Entry of ``layers`` (cells x genes, CSR) and of ``uns``."""
    median: str
    """Column of ``var``: what a gene was divided by."""
    n_genes: str
    """Column of ``obs``: genes with a rank, before any cut."""
    zeros: str
    """Column of ``obs``: the rank that all zeros share."""


def rank_keys(key: str) -> RankKeys:
    """Slots that belong to a rank encoding."""
    return RankKeys(key=key, median=f"{key}_median", n_genes=f"{key}_n_genes", zeros=f"{key}_zeros")


@dataclass(frozen=True)
class ThinKeys:
    """Slots of counts that were cut into two parts."""

    key: str
    """Entry of ``uns``."""
    train: str
    """Entry of ``layers`` to learn from."""
    test: str
    """Entry of ``layers`` to test on."""
    overdispersion: str
    """Column of ``var``."""


def thin_keys(key: str = "thin") -> ThinKeys:
    """Slots that belong to a thinning."""
    return ThinKeys(key=key, train=f"{key}_train", test=f"{key}_test", overdispersion=f"{key}_overdispersion")


@dataclass(frozen=True)
class SaliencyKeys:
    """Slots of the saliency of one model in an AnnData."""

    key: str
    """Entry of ``uns``."""
    genes: str
    """Entry of ``varm``: genes x units."""


def saliency_keys(key: str = SALIENCY_KEY) -> SaliencyKeys:
    """Slots that belong to a saliency."""
    return SaliencyKeys(key=key, genes=key)


def steered_key(use_rep: str) -> str:
    """Entry of ``obsm`` with the embedding after steering."""
    return f"{use_rep}_steered"


def clean_key(use_rep: str) -> str:
    """Entry of ``obsm`` with the embedding without its suppressed features."""
    return f"{use_rep}_clean"
