"""Hand results over to the rest of the ecosystem."""

from __future__ import annotations

from ._features import features
from ._mudata import mudata
from ._sae import sae
from ._tables import association, differential, enrichment, genes

__all__ = ["association", "differential", "enrichment", "features", "genes", "mudata", "sae"]
