"""Sparse autoencoders on arrays: no AnnData here."""

from __future__ import annotations

from sparsesc._train_config import TrainConfig

from ._sae import SparseAutoencoder
from ._train import TrainResult, train
from ._train_many import train_many
from .architectures import ARCHITECTURES

__all__ = ["ARCHITECTURES", "SparseAutoencoder", "TrainConfig", "TrainResult", "train", "train_many"]
