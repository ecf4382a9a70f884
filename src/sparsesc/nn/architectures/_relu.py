"""ReLU code with an L1 penalty (Bricken et al. 2023)."""

from __future__ import annotations

from typing import ClassVar

import torch

from ._base import Code, Parameters, Penalized


class ReLU(Penalized):
    r"""The L1 baseline: all positive pre-activations are active, and a penalty keeps them few and small.

    Notes
    -----
    .. math::

        f = \max(p, 0), \qquad \mathcal{L} = \frac{1}{d} \Big( |x - \hat x|^2 + \lambda \sum_i f_i \Big)

    averaged over cells. Decoder rows have unit norm, so the sum of activations needs no weights.

    References
    ----------
    Bricken, T. et al. (2023). Towards monosemanticity: decomposing language models with dictionary learning.
    Transformer Circuits Thread.
    """

    name: ClassVar[str] = "relu"

    def penalty(self, p: Parameters, x: torch.Tensor, code: Code, progress: float) -> torch.Tensor:
        """Lambda times the mean over cells of the summed activations, per dimension like the reconstruction loss."""
        return self.penalty_weight(progress) * code.active.sum(1).mean() / x.shape[1]
