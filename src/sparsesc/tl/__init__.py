"""Tools: fit features, read them."""

from __future__ import annotations

from ._apply_sae import apply_sae
from ._fit_sae import fit_sae

__all__ = [
    "apply_sae",
    "fit_sae",
]
