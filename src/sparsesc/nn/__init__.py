"""Sparse autoencoders on arrays: no AnnData here."""

from __future__ import annotations

from ._config import TrainConfig
from ._sae import SparseAutoencoder
from ._train import TrainResult, train
from .architectures import ARCHITECTURES

__all__ = ["ARCHITECTURES", "SparseAutoencoder", "TrainConfig", "TrainResult", "train"]
