"""The k x B largest pre-activations of the batch (Bussmann et al. 2024)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from sparsesc.nn._threshold import exact_threshold

from ._base import Architecture, Parameters


class BatchTopK(Architecture):
    r"""k active features per cell on average: each cell has as many as it needs.

    Notes
    -----
    .. math::

        f_{ni} = \max(p_{ni}, 0) \, [p_{ni} \ge \theta_B]

    with :math:`\theta_B` the (k B)-th largest pre-activation of a batch of B cells. After training there are no
    batches. The code then has one threshold :math:`\theta` for all features, at which training cells have k active
    features on average.

    References
    ----------
    Bussmann, B., Leask, P. & Nanda, N. (2024). BatchTopK sparse autoencoders. arXiv:2412.06410.
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
        """The threshold at which cells ``X`` have k active features on average."""
        weights = super().inference(p, X)
        weights["threshold"][:] = exact_threshold(weights, X, self.config.k)
        return weights
