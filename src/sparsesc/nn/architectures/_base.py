"""The hooks in which architectures differ, and what all of them share.

``Parameters`` are tensors by name: ``E`` (F, d) the transposed encoder, ``D`` (F, d) the decoder, ``b_enc`` (F,),
``b_dec`` (d,), plus what an architecture adds. All of them are in standardized units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

if TYPE_CHECKING:
    from sparsesc._train_config import TrainConfig

type Parameters = dict[str, torch.Tensor]


@dataclass
class Code:
    """The forward pass of one batch."""

    pre: torch.Tensor
    """Pre-activations (B, F)."""
    active: torch.Tensor
    """Codes (B, F), zero where a feature is silent."""


class Architecture:
    r"""The base class of all architectures: a plain ReLU code without a sparsity penalty.

    Subclasses override how pre-activations become a code, what is added to the loss, and which weights are used after
    training.

    Notes
    -----
    With row vectors, a standardized cell :math:`x` and its copy with noise :math:`\tilde x`, every architecture has

    .. math::

        p = (\tilde x - b_{dec}) E^\top + b_{enc}, \qquad f = \sigma(p), \qquad \hat x = f D + b_{dec}

    and minimizes the mean of :math:`(\hat x - x)^2` over cells and dimensions plus its own penalty. Here
    :math:`\sigma` is :meth:`activate`, for this class :math:`\max(p, 0)`. Rows of :math:`D` have unit norm.
    """

    name: ClassVar[str]
    by_batch: ClassVar[bool | None] = None
    """For codes that keep the largest entries: over the batch (True) or in each cell (False). ``None``: other rules."""
    revives_by_auxiliary: ClassVar[bool] = True
    """Whether dead features learn from the residual (AuxK)."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def extra_parameters(self, start: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """Initial values of parameters beyond encoder, decoder and biases, given those and training cells ``X``."""
        return {}

    def decoder(self, p: Parameters) -> torch.Tensor:
        """Decoder (F, d) with unit rows, differentiable in the parameters."""
        return p["D"]

    def constrain(self, p: Parameters) -> None:
        """Project parameters onto their constraints, in place, after each step; ``p["D"]`` is then the decoder."""
        p["D"] /= p["D"].norm(dim=1, keepdim=True).clamp_min(1e-12)

    def encode(self, p: Parameters, x: torch.Tensor) -> Code:
        """Forward pass of a batch (B, d)."""
        pre = (x - p["b_dec"]) @ p["E"].T + p["b_enc"]
        return Code(pre, self.activate(p, pre))

    def activate(self, p: Parameters, pre: torch.Tensor) -> torch.Tensor:
        """Codes of pre-activations."""
        return pre.clamp_min(0)

    def penalty(self, p: Parameters, x: torch.Tensor, code: Code, progress: float) -> torch.Tensor | None:
        """Term that is added to the reconstruction loss; ``progress`` runs from 0 to 1 over the training."""
        return None

    def after_step(self, active: torch.Tensor) -> None:
        """Adjust what gradients do not train, given the code (B, F) of a step."""

    def inference(self, p: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """Encoder, biases, decoder and thresholds as used after training; ``X`` are training cells."""
        threshold = np.zeros(len(p["D"]), np.float32)
        return {"E": p["E"], "b_enc": p["b_enc"], "D": p["D"], "b_dec": p["b_dec"], "threshold": threshold}


class Penalized(Architecture):
    r"""A code that is sparse because of an L1 penalty: the base of ``relu`` and ``gated``.

    The weight :math:`\lambda` of the penalty is ``config.penalty``, with a linear warm-up. Where that is ``None``,
    :math:`\lambda` is adjusted after each step until a batch has k active features per cell:

    .. math::

        \log \lambda \leftarrow \log \lambda + 0.02 \, \log \frac{L_0}{k}

    with :math:`L_0` the mean number of active features in the batch, and :math:`\log (L_0 / k)` cut off at -1 and 1.
    """

    _RATE = 0.02

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self._log_weight = np.log(1e-3)

    def penalty_weight(self, progress: float) -> float:
        """The weight lambda at this point of the training."""
        fixed, warmup = self.config.penalty, self.config.warmup
        if fixed is not None:
            return fixed * min(1.0, progress / warmup) if warmup > 0 else fixed
        return np.exp(self._log_weight)

    def after_step(self, active: torch.Tensor) -> None:
        """Move lambda so that L0 approaches k."""
        if self.config.penalty is None:
            ratio = float((active > 0).sum()) / len(active) / self.config.k
            self._log_weight += self._RATE * float(np.clip(np.log(max(ratio, 1e-3)), -1, 1))
