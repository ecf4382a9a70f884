"""Tools: fit features, read them."""

from __future__ import annotations

from sparsesc.studies.ranks._rank_fidelity import rank_fidelity
from sparsesc.studies.saliency._geneset_impact import geneset_impact
from sparsesc.studies.saliency._saliency import saliency
from sparsesc.studies.vae._count_diagnostics import count_diagnostics
from sparsesc.studies.vae._latent_diagnostics import latent_diagnostics
from sparsesc.studies.vae._vae_study import vae_study

from .act._differential_features import differential_features
from .act._steer import steer
from .act._suppress_features import suppress_features
from .fit._apply_sae import apply_sae
from .fit._fit_crosscoder import fit_crosscoder
from .fit._fit_sae import fit_sae
from .fit._stability import stability
from .fit._sweep import sweep
from .genes._feature_enrichment import feature_enrichment
from .genes._feature_genes import feature_genes
from .labels._annotate_features import annotate_features
from .labels._compare_representations import compare_representations
from .labels._feature_absorption import feature_absorption
from .labels._feature_association import feature_association
from .labels._feature_locality import feature_locality
from .labels._feature_similarity import feature_similarity

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
