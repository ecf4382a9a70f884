"""ReLU code with an L1 penalty weighted by decoder norms (Bricken et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ._base import Architecture, Code, SteeredPenalty

if TYPE_CHECKING:
    import torch

    from sparsesc._train_config import TrainConfig

    from ._base import Parameters


class ReLU(Architecture):
    """The L1 baseline. Decoder rows have unit norm, so the penalty is the plain sum of activations."""

    name: ClassVar[str] = "relu"

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.weight = SteeredPenalty(config.penalty, config.k, start=1e-3)

    def penalty(self, p: Parameters, x: torch.Tensor, code: Code, progress: float) -> torch.Tensor:
        """Lambda times the mean over cells of the summed activations, per dimension as the reconstruction loss."""
        return self.weight.weight(progress, self.config.warmup) * code.active.sum(1).mean() / x.shape[1]

    def after_step(self, active: torch.Tensor) -> None:
        """Move lambda toward the asked L0."""
        self.weight.observe(active)
