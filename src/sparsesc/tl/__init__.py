"""Tools: fit features, read them."""

from __future__ import annotations

from ._annotate_features import annotate_features
from ._apply_sae import apply_sae
from ._compare_representations import compare_representations
from ._count_diagnostics import count_diagnostics
from ._differential_features import differential_features
from ._feature_absorption import feature_absorption
from ._feature_association import feature_association
from ._feature_enrichment import feature_enrichment
from ._feature_genes import feature_genes
from ._feature_locality import feature_locality
from ._feature_similarity import feature_similarity
from ._fit_crosscoder import fit_crosscoder
from ._fit_sae import fit_sae
from ._geneset_impact import geneset_impact
from ._latent_diagnostics import latent_diagnostics
from ._rank_fidelity import rank_fidelity
from ._saliency import saliency
from ._stability import stability
from ._steer import steer
from ._suppress_features import suppress_features
from ._sweep import sweep
from ._vae_study import vae_study

__all__ = [
    "annotate_features",
    "apply_sae",
    "compare_representations",
    "count_diagnostics",
    "differential_features",
    "feature_absorption",
    "feature_association",
    "feature_enrichment",
    "feature_genes",
    "feature_locality",
    "feature_similarity",
    "fit_crosscoder",
    "fit_sae",
    "geneset_impact",
    "latent_diagnostics",
    "rank_fidelity",
    "saliency",
    "stability",
    "steer",
    "suppress_features",
    "sweep",
    "vae_study",
]
