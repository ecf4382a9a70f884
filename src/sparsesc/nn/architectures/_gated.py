"""One part of the code decides whether a feature is active, another how strongly (Rajamanoharan et al. 2024a)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from ._base import Code, Parameters, Penalized


class Gated(Penalized):
    r"""A gate (is the projection above zero?) times a magnitude (the same projection, rescaled and shifted).

    Notes
    -----
    With :math:`\pi = (\tilde x - b_{dec}) E^\top`, a scale :math:`s_i > 0` and a bias :math:`b_{mag}` that are learned,

    .. math::

        p = \pi + b_{enc}, \qquad f_i = [p_i > 0] \, \max(s_i \pi_i + b_{mag,i}, 0)

    .. math::

        \mathcal{L} = \frac{1}{d} \Big( |x - \hat x|^2 + |x - \max(p, 0) \, \bar D - \bar b_{dec}|^2
        + \lambda \sum_i \max(p_i, 0) \Big)

    averaged over cells. The gate :math:`[p_i > 0]` has no gradient. It learns from the second term, the auxiliary
    reconstruction through a frozen decoder (:math:`\bar D`, :math:`\bar b_{dec}`). Only the positive part of the gate
    has an L1 penalty, so magnitudes do not shrink.

    References
    ----------
    Rajamanoharan, S. et al. (2024a). Improving dictionary learning with gated sparse autoencoders. arXiv:2404.16014.
    """

    name: ClassVar[str] = "gated"

    def extra_parameters(self, start: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """Log scale and bias of the magnitude; ``b_enc`` is the gate's."""
        return {"log_scale": np.zeros_like(start["b_enc"]), "b_mag": np.zeros_like(start["b_enc"])}

    def activate(self, p: Parameters, pre: torch.Tensor) -> torch.Tensor:
        """Gate times magnitude."""
        magnitude = (pre - p["b_enc"]) * p["log_scale"].exp() + p["b_mag"]
        return magnitude.clamp_min(0) * (pre > 0)

    def penalty(self, p: Parameters, x: torch.Tensor, code: Code, progress: float) -> torch.Tensor:
        """L1 on the positive part of the gate, and its reconstruction with the decoder and its bias frozen."""
        gate = code.pre.clamp_min(0)
        x_gate = gate @ p["D"].detach() + p["b_dec"].detach()
        sparsity = self.penalty_weight(progress) * gate.sum(1).mean() / x.shape[1]
        return (x_gate - x).square().mean() + sparsity

    def inference(self, p: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """The same code as one thresholded projection: the gate opens where the magnitude passes a fixed value."""
        weights = super().inference(p, X)
        scale = np.exp(p["log_scale"])
        weights["E"] = p["E"] * scale[:, None]
        weights["b_enc"] = p["b_mag"]
        weights["threshold"] = np.maximum(p["b_mag"] - scale * p["b_enc"], 0)
        return weights
