"""A learned threshold for each feature (Rajamanoharan et al. 2024b, as is the L0 target)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from sparsesc.nn._threshold import exact_threshold

from ._base import Architecture, Code, Parameters

_SAMPLE = 1024
_SMALLEST = 0.01  # smallest initial threshold, in units of the standardized embedding
_BANDWIDTH = 0.2  # width of the window around a threshold in which pre-activations give it a gradient


class Jump(torch.autograd.Function):
    """``pre * (pre > theta)`` with a straight-through gradient for ``theta``."""

    @staticmethod
    def forward(ctx: Any, pre: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        """Entries above their threshold."""
        ctx.save_for_backward(pre, theta)
        return pre * ((pre > theta) & (pre > 0))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Exact for ``pre``; for ``theta`` an average over the window."""
        pre, theta = ctx.saved_tensors
        (grad,) = grads
        grad_theta = -(theta / _BANDWIDTH) * _window(pre, theta) * grad
        return grad * (pre > theta), grad_theta.sum(0)


class Step(torch.autograd.Function):
    """``pre > theta`` as a number, with a straight-through gradient for ``theta``."""

    @staticmethod
    def forward(ctx: Any, pre: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        """One for entries above their threshold, zero for all others."""
        ctx.save_for_backward(pre, theta)
        return (pre > theta).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, torch.Tensor]:
        """None for ``pre``; for ``theta`` an average over the window."""
        pre, theta = ctx.saved_tensors
        (grad,) = grads
        return None, (-(1 / _BANDWIDTH) * _window(pre, theta) * grad).sum(0)


def _window(pre: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    return ((pre - theta).abs() < _BANDWIDTH / 2).to(pre.dtype)


class JumpReLU(Architecture):
    r"""A code with a threshold for each feature, learned with straight-through gradients while L0 is pulled to k.

    Notes
    -----
    .. math::

        f_i = p_i \, [p_i > \theta_i], \qquad
        \mathcal{L} = \frac{1}{d} |x - \hat x|^2 + w \, \Big( \frac{L_0}{k} - 1 \Big)^2

    averaged over cells, with :math:`L_0` the mean number of active features in the batch and :math:`w` a weight that
    rises linearly from 0 to 1 during the warm-up. Thresholds have no exact gradient. The estimates are

    .. math::

        \frac{\partial f_i}{\partial \theta_i} \approx -\frac{\theta_i}{\epsilon} \, K, \qquad
        \frac{\partial [p_i > \theta_i]}{\partial \theta_i} \approx -\frac{1}{\epsilon} \, K, \qquad
        K = \Big[ |p_i - \theta_i| < \frac{\epsilon}{2} \Big]

    with a bandwidth :math:`\epsilon` of 0.2. Adam steps on :math:`\log \theta_i`.

    References
    ----------
    Rajamanoharan, S. et al. (2024b). Jumping ahead: improving reconstruction fidelity with JumpReLU sparse
    autoencoders. arXiv:2407.14435.
    """

    name: ClassVar[str] = "jumprelu"

    def extra_parameters(self, start: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """Log thresholds, at which k features are active to begin with: thresholds move slowly."""
        theta = exact_threshold(start, X[:_SAMPLE], self.config.k)
        return {"log_theta": np.full(len(start["D"]), np.log(max(theta, _SMALLEST)), np.float32)}

    def activate(self, p: Parameters, pre: torch.Tensor) -> torch.Tensor:
        """Entries above their threshold."""
        return Jump.apply(pre, p["log_theta"].exp())

    def penalty(self, p: Parameters, x: torch.Tensor, code: Code, progress: float) -> torch.Tensor:
        """(L0 / k - 1)^2, warmed up."""
        l0 = Step.apply(code.pre, p["log_theta"].exp()).sum(1).mean()
        return min(1.0, progress / max(self.config.warmup, 1e-9)) * (l0 / self.config.k - 1) ** 2

    def inference(self, p: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """The learned thresholds."""
        weights = super().inference(p, X)
        weights["threshold"] = np.exp(p["log_theta"])
        return weights
