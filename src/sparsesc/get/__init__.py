"""Hand results over to the rest of the ecosystem."""

from __future__ import annotations

from ._count_diagnostics import count_diagnostics
from ._features import features
from ._locality import locality
from ._mudata import mudata
from ._rank_fidelity import rank_fidelity
from ._sae import sae
from ._similarity import similarity
from ._tables import association, differential, enrichment, genes

__all__ = [
    "association",
    "count_diagnostics",
    "differential",
    "enrichment",
    "features",
    "genes",
    "locality",
    "mudata",
    "rank_fidelity",
    "sae",
    "similarity",
]
