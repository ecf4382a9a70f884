"""What all architectures share, and the hooks in which they differ.

``Parameters`` are tensors by name: ``E`` (F, d) the transposed encoder, ``D`` (F, d) the decoder, ``b_enc`` (F,),
``b_dec`` (d,), plus what an architecture adds. All of it is in standardised units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    import torch

    from sparsesc._train_config import TrainConfig

    Parameters = dict[str, torch.Tensor]


@dataclass
class Code:
    """The forward pass of one batch."""

    pre: torch.Tensor
    """Pre-activations (B, F)."""
    active: torch.Tensor
    """Codes (B, F), zero where a feature is silent."""


class Architecture:
    """An architecture: how pre-activations become a code, what is added to the loss, and what is used afterwards.

    The base class is a plain ReLU code without any pressure to be sparse.
    """

    name: ClassVar[str]
    by_batch: ClassVar[bool | None] = None
    """For codes that keep the largest entries: over the batch (True) or in each cell (False). ``None``: other rules."""
    revives_by_auxiliary: ClassVar[bool] = True
    """Whether dead features learn from the residual (AuxK)."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def extra_parameters(self, start: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters beyond encoder, decoder and their biases, given where these start and training cells."""
        return {}

    def decoder(self, p: Parameters) -> torch.Tensor:
        """Decoder (F, d) with unit rows, as the gradient sees it."""
        return p["D"]

    def constrain(self, p: Parameters) -> None:
        """Bring parameters back to where they may be, in place, after each step; ``p["D"]`` is then the decoder."""
        p["D"] /= p["D"].norm(dim=1, keepdim=True).clamp_min(1e-12)

    def pre_activations(self, p: Parameters, x: torch.Tensor) -> torch.Tensor:
        """(x - b_dec) @ E.T + b_enc."""
        return (x - p["b_dec"]) @ p["E"].T + p["b_enc"]

    def encode(self, p: Parameters, x: torch.Tensor) -> Code:
        """Forward pass of a batch (B, d)."""
        pre = self.pre_activations(p, x)
        return Code(pre, self.activate(p, pre))

    def activate(self, p: Parameters, pre: torch.Tensor) -> torch.Tensor:
        """Codes of pre-activations."""
        return pre.clamp_min(0)

    def penalty(self, p: Parameters, x: torch.Tensor, code: Code, progress: float) -> torch.Tensor | None:
        """What is added to the reconstruction loss; ``progress`` runs from 0 to 1 over the training."""
        return None

    def after_step(self, active: torch.Tensor) -> None:
        """Adjust what is not learned by gradients, seeing the code (B, F) of a step."""

    def inference(self, p: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """Encoder, biases, decoder and thresholds as used after training; ``X`` are training cells."""
        threshold = np.zeros(len(p["D"]), np.float32)
        return {"E": p["E"], "b_enc": p["b_enc"], "D": p["D"], "b_dec": p["b_dec"], "threshold": threshold}


class SteeredPenalty:
    """The weight of a sparsity penalty: fixed and warmed up, or moved until the mean L0 is the one asked for."""

    def __init__(self, fixed: float | None, target: int, *, start: float) -> None:
        self.fixed, self.target = fixed, target
        self._log_weight = np.log(start)

    def weight(self, progress: float, warmup: float) -> torch.Tensor | float:
        """Weight at this point of the training."""
        if self.fixed is not None:
            return self.fixed * min(1.0, progress / warmup) if warmup > 0 else self.fixed
        return np.exp(self._log_weight)

    def observe(self, active: torch.Tensor, rate: float = 0.02) -> None:
        """See the code of a step, (B, F)."""
        if self.fixed is None:
            ratio = float((active > 0).sum()) / len(active) / self.target
            self._log_weight += rate * float(np.clip(np.log(max(ratio, 1e-3)), -1, 1))
