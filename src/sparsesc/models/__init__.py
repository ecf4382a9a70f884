"""Models that learn a latent representation of expression, on the base classes of scvi-tools."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dgd._dgd import DGD
    from .orthogonal_ae._orthogonal_ae import OrthogonalAE

# Imported at first use: each model needs scvi-tools, which takes seconds to load.
_MODULES = {"DGD": "dgd._dgd", "OrthogonalAE": "orthogonal_ae._orthogonal_ae"}

__all__ = ["DGD", "OrthogonalAE"]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    msg = f"module 'sparsesc.models' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
