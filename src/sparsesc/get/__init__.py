"""Hand results over to the rest of the ecosystem."""

from __future__ import annotations

from ._features import features
from ._mudata import mudata
from ._sae import sae
from ._tables import enrichment, genes

__all__ = ["enrichment", "features", "genes", "mudata", "sae"]
