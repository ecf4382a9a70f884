"""The k largest pre-activations of each cell (Gao et al. 2024)."""

from __future__ import annotations

from typing import ClassVar

import torch

from ._base import Architecture, Parameters


class TopK(Architecture):
    r"""Exactly k active features in every cell (fewer when fewer are positive).

    Notes
    -----
    .. math::

        f_i = \max(p_i, 0) \, [p_i \ge p_{(k)}]

    with :math:`p_{(k)}` the k-th largest pre-activation of the cell. The same rule holds after training.

    References
    ----------
    Gao, L. et al. (2024). Scaling and evaluating sparse autoencoders. arXiv:2406.04093.
    """

    name: ClassVar[str] = "topk"
    by_batch: ClassVar[bool | None] = False

    def activate(self, p: Parameters, pre: torch.Tensor) -> torch.Tensor:
        """Keep the k largest of each row."""
        value, index = pre.clamp_min(0).topk(self.config.k, dim=1, sorted=False)
        return torch.zeros_like(pre).scatter(1, index, value)
