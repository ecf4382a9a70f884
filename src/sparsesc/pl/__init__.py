"""Plots of features, in scanpy's manner: they never change their input."""

from __future__ import annotations

from ._association import association
from ._count_diagnostics import count_diagnostics
from ._crosscoder import crosscoder
from ._differential import differential
from ._drift import drift
from ._enrichment import enrichment
from ._feature_card import feature_card
from ._feature_density import feature_density
from ._feature_umap import feature_umap
from ._genes import genes
from ._geneset_impact import geneset_impact
from ._latent_diagnostics import latent_diagnostics
from ._locality import locality
from ._rank_fidelity import rank_fidelity
from ._representations import representations
from ._similarity import similarity
from ._stability import stability
from ._steering import steering
from ._suppression import suppression
from ._sweep import sweep
from ._training import training

__all__ = [
    "association",
    "count_diagnostics",
    "crosscoder",
    "differential",
    "drift",
    "enrichment",
    "feature_card",
    "feature_density",
    "feature_umap",
    "genes",
    "geneset_impact",
    "latent_diagnostics",
    "locality",
    "rank_fidelity",
    "representations",
    "similarity",
    "stability",
    "steering",
    "suppression",
    "sweep",
    "training",
]
