"""Tools: fit features, read them."""

from __future__ import annotations

from ._annotate_features import annotate_features
from ._apply_sae import apply_sae
from ._compare_representations import compare_representations
from ._differential_features import differential_features
from ._feature_association import feature_association
from ._feature_enrichment import feature_enrichment
from ._feature_genes import feature_genes
from ._fit_sae import fit_sae
from ._stability import stability

__all__ = [
    "annotate_features",
    "apply_sae",
    "compare_representations",
    "differential_features",
    "feature_association",
    "feature_enrichment",
    "feature_genes",
    "fit_sae",
    "stability",
]
