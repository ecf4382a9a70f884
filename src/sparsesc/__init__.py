"""sparsesc: sparse, named and tested biological features from any single-cell embedding."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import datasets, decoders, get, models, nn, pl, pp, stats, tl

__version__ = version("sparsesc")

# Imported at first use, so that `import sparsesc` costs nothing: `nn` needs torch, `models` scvi-tools.
_SUBMODULES = ("datasets", "decoders", "get", "models", "nn", "pl", "pp", "stats", "tl")

__all__ = ["__version__", *_SUBMODULES]


def __getattr__(name: str) -> object:
    if name in _SUBMODULES:
        return import_module(f".{name}", __name__)
    msg = f"module 'sparsesc' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
