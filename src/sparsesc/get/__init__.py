"""Hand results over to the rest of the ecosystem: tables, features as AnnData or MuData, and the model."""

from __future__ import annotations

from ._features import features
from ._gene_scores import gene_scores
from ._mudata import mudata
from ._sae import sae
from ._saliency import saliency
from ._stability import stability
from ._table import table
from ._tables import (
    absorption,
    annotation,
    association,
    count_diagnostics,
    crosscoder,
    differential,
    drift,
    enrichment,
    genes,
    geneset_impact,
    history,
    latent_diagnostics,
    locality,
    rank_fidelity,
    similarity,
    steering,
    suppression,
)
from ._weights import weights

__all__ = [
    "absorption",
    "annotation",
    "association",
    "count_diagnostics",
    "crosscoder",
    "differential",
    "drift",
    "enrichment",
    "features",
    "gene_scores",
    "genes",
    "geneset_impact",
    "history",
    "latent_diagnostics",
    "locality",
    "mudata",
    "rank_fidelity",
    "sae",
    "saliency",
    "similarity",
    "stability",
    "steering",
    "suppression",
    "table",
    "weights",
]
