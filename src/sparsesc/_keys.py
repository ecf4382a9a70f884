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
STEERING = "steering"
VALIDATION = "validation_obs"

WEIGHT_NAMES = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
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


@dataclass(frozen=True)
class SaeKeys:
    """Slots of one sparse autoencoder in an AnnData."""

    key: str
    """Entry of ``uns`` that holds parameters, weights and tables."""
    codes: str
    """Entry of ``obsm``: cells x features, CSR."""
    genes: str
    """Entry of ``varm``: genes x features."""

    def feature_names(self, n_features: int) -> list[str]:
        """Stable names, ``{key}_0 ...``."""
        return [f"{self.key}_{i}" for i in range(n_features)]


def sae_keys(key: str = DEFAULT_KEY) -> SaeKeys:
    """Slots that belong to ``key``."""
    return SaeKeys(key=key, codes=f"X_{key}", genes=f"{key}_genes")


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


def steered_key(use_rep: str) -> str:
    """Entry of ``obsm`` with the embedding after steering."""
    return f"{use_rep}_steered"


def clean_key(use_rep: str) -> str:
    """Entry of ``obsm`` with the embedding without its suppressed features."""
    return f"{use_rep}_clean"
