"""Whether a feature is active and how strongly, learned apart (Rajamanoharan et al. 2024a)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ._base import Architecture, Code, SteeredPenalty

if TYPE_CHECKING:
    import torch

    from sparsesc._train_config import TrainConfig

    from ._base import Parameters


class Gated(Architecture):
    """A gate (is the shared projection above zero?) times a magnitude (the same projection, rescaled and shifted).

    The gate has no gradient of its own; the auxiliary reconstruction from its positive part gives it one, through a
    frozen decoder, and the L1 penalty falls on that part alone, so that magnitudes are not shrunk.
    """

    name: ClassVar[str] = "gated"

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.weight = SteeredPenalty(config.penalty, config.k, start=1e-3)

    def extra_parameters(self, start: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """Log scale and bias of the magnitude; ``b_enc`` is the gate's."""
        return {"log_scale": np.zeros_like(start["b_enc"]), "b_mag": np.zeros_like(start["b_enc"])}

    def activate(self, p: Parameters, pre: torch.Tensor) -> torch.Tensor:
        """Gate times magnitude."""
        magnitude = (pre - p["b_enc"]) * p["log_scale"].exp() + p["b_mag"]
        return magnitude.clamp_min(0) * (pre > 0)

    def penalty(self, p: Parameters, x: torch.Tensor, code: Code, progress: float) -> torch.Tensor:
        """L1 on the gate's positive part, and its reconstruction with decoder and centre frozen."""
        gate = code.pre.clamp_min(0)
        x_gate = gate @ p["D"].detach() + p["b_dec"].detach()
        sparsity = self.weight.weight(progress, self.config.warmup) * gate.sum(1).mean() / x.shape[1]
        return (x_gate - x).square().mean() + sparsity

    def after_step(self, active: torch.Tensor) -> None:
        """Move lambda toward the asked L0."""
        self.weight.observe(active)

    def inference(self, p: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """The same code as one thresholded projection: the gate opens where the magnitude passes a fixed value."""
        weights = super().inference(p, X)
        scale = np.exp(p["log_scale"])
        weights["E"] = p["E"] * scale[:, None]
        weights["b_enc"] = p["b_mag"]
        weights["threshold"] = np.maximum(p["b_mag"] - scale * p["b_enc"], 0)
        return weights
