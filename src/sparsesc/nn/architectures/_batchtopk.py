"""The k x B largest pre-activations of the batch (Bussmann et al. 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sparsesc.nn._threshold import exact_threshold

from ._base import Architecture

if TYPE_CHECKING:
    import torch

    from ._base import Parameters


class BatchTopK(Architecture):
    """k active features per cell on average: cells take more or fewer as they need.

    Batches do not exist afterwards, so the code used then is a threshold, the same for all features, that gives k
    active features per training cell on average.
    """

    name: ClassVar[str] = "batchtopk"
    by_batch: ClassVar[bool | None] = True

    def activate(self, p: Parameters, pre: torch.Tensor) -> torch.Tensor:
        """Keep the k x B largest of the batch."""
        positive = pre.clamp_min(0)
        total = min(self.config.k * len(pre), positive.numel())
        limit = positive.flatten().topk(total, sorted=False).values.min()
        return positive * (positive >= limit)

    def inference(self, p: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """A threshold found over all of ``X``."""
        weights = super().inference(p, X)
        weights["threshold"][:] = exact_threshold(weights, X, self.config.k)
        return weights
