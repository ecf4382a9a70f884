"""A learned threshold for each feature (Rajamanoharan et al. 2024b; the L0 target is theirs, too)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sparsesc.nn._threshold import exact_threshold

from ._base import Architecture, Code

if TYPE_CHECKING:
    import torch

    from ._base import Parameters

_SAMPLE = 1024
_LEAST = 0.01  # smallest first threshold, in units of the standardised embedding
_BANDWIDTH = 0.2  # width of the window in which a threshold feels its entries


class JumpReLU(Architecture):
    """``pre * (pre > theta)``, theta learned by straight-through estimates, L0 pulled to k."""

    name: ClassVar[str] = "jumprelu"

    def extra_parameters(self, start: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """Log thresholds, such that k features are active to begin with: they move slowly."""
        theta = exact_threshold(start, X[:_SAMPLE], self.config.k)
        return {"log_theta": np.full(len(start["D"]), np.log(max(theta, _LEAST)), np.float32)}

    def activate(self, p: Parameters, pre: torch.Tensor) -> torch.Tensor:
        """Entries above their threshold."""
        jump, _ = _estimators()
        return jump.apply(pre, p["log_theta"].exp())

    def penalty(self, p: Parameters, x: torch.Tensor, code: Code, progress: float) -> torch.Tensor:
        """(L0 / k - 1)^2, warmed up."""
        _, step = _estimators()
        l0 = step.apply(code.pre, p["log_theta"].exp()).sum(1).mean()
        return min(1.0, progress / max(self.config.warmup, 1e-9)) * (l0 / self.config.k - 1) ** 2

    def inference(self, p: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """The learned thresholds."""
        weights = super().inference(p, X)
        weights["threshold"] = np.exp(p["log_theta"])
        return weights


def _estimators() -> tuple[Any, Any]:
    """The two functions with straight-through gradients; built on demand because torch is imported on demand."""
    global _CACHED
    if _CACHED is None:
        _CACHED = _build()
    return _CACHED


_CACHED: tuple[Any, Any] | None = None


def _build() -> tuple[Any, Any]:
    import torch

    def window(pre: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        return ((pre - theta).abs() < _BANDWIDTH / 2).to(pre.dtype)

    class Jump(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, pre: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(pre, theta)
            return pre * ((pre > theta) & (pre > 0))

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            pre, theta = ctx.saved_tensors
            (grad,) = grads
            to_theta = -(theta / _BANDWIDTH) * window(pre, theta) * grad
            return grad * (pre > theta), to_theta.sum(0)

    class Step(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, pre: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(pre, theta)
            return (pre > theta).to(pre.dtype)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, torch.Tensor]:
            pre, theta = ctx.saved_tensors
            (grad,) = grads
            return None, (-(1 / _BANDWIDTH) * window(pre, theta) * grad).sum(0)

    return Jump, Step
