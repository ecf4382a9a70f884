"""Hand results over to the rest of the ecosystem."""

from __future__ import annotations

from ._count_diagnostics import count_diagnostics
from ._crosscoder import crosscoder
from ._drift import drift
from ._features import features
from ._geneset_impact import geneset_impact
from ._latent_diagnostics import latent_diagnostics
from ._locality import locality
from ._mudata import mudata
from ._rank_fidelity import rank_fidelity
from ._sae import sae
from ._saliency import saliency
from ._similarity import similarity
from ._suppression import suppression
from ._tables import association, differential, enrichment, genes

__all__ = [
    "association",
    "count_diagnostics",
    "crosscoder",
    "differential",
    "drift",
    "enrichment",
    "features",
    "genes",
    "geneset_impact",
    "latent_diagnostics",
    "locality",
    "mudata",
    "rank_fidelity",
    "sae",
    "saliency",
    "similarity",
    "suppression",
]
