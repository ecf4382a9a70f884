"""Log densities of the priors over a mixture's means, weights and variances."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import torch
from torch.nn import functional as F


def log_softball(means: torch.Tensor, radius: float, hardness: float) -> torch.Tensor:
    r"""Log density of every row under a distribution that is nearly uniform in a ball with a soft edge.

    Parameters
    ----------
    means
        Components x dimensions.
    radius
        Distance from the origin at which the density is half of that inside.
    hardness
        Sharpness of the edge. Beyond it, the density falls by a factor e per `radius` / `hardness`.

    Notes
    -----
    The density is

    .. math:: p(\mu) = \frac{1}{C} \cdot \frac{1}{1 + \exp\left(h\,(\lVert\mu\rVert / r - 1)\right)}.

    It was published with the constant of a ball with a sharp edge, with which it is not normalized: with 20 dimensions
    and a hardness of 5 the integral is 4e6. With the constant :math:`C` here it is 1, so that densities with different
    radii can be compared; the gradient is the same.
    """
    d = means.shape[-1]
    edge = F.softplus(hardness * (torch.linalg.vector_norm(means, dim=-1) / radius - 1))
    return _log_ball(d, radius) - _log_excess(d, hardness) - edge


def sample_ball(n: int, d: int, radius: float) -> torch.Tensor:
    """Points that are uniform in a ball, n x d."""
    direction = torch.randn(n, d)
    direction /= torch.linalg.vector_norm(direction, dim=1, keepdim=True).clamp(min=1e-12)
    return direction * radius * torch.rand(n, 1) ** (1 / d)


def log_dirichlet(log_weights: torch.Tensor, alpha: float) -> torch.Tensor:
    """Log density of weights that sum to one, under a symmetric Dirichlet distribution."""
    n = len(log_weights)
    return math.lgamma(n * alpha) - n * math.lgamma(alpha) + (alpha - 1) * log_weights.sum()


def log_precision_normal(log_precisions: torch.Tensor, sd: float) -> torch.Tensor:
    """Log density of log precisions, normal around that of `sd` with a standard deviation of 1, summed."""
    gap = log_precisions + 2 * math.log(sd)
    return (-0.5 * gap.square() - 0.5 * math.log(2 * math.pi)).sum()


def _log_ball(d: int, radius: float) -> float:
    """Log of one over the volume of a ball."""
    return math.lgamma(1 + d / 2) - d * (math.log(radius) + math.log(math.pi) / 2)


@lru_cache
def _log_excess(d: int, hardness: float) -> float:
    r"""Log of the integral of the soft ball over that of the sharp one, :math:`d\int r^{d-1}/(1+e^{h(r-1)})\,dr`.

    A Fermi-Dirac integral. In many dimensions the integrand has a peak far outside the ball and overflows, so it is
    divided by its value at the peak.
    """
    from scipy.integrate import quad

    def log_integrand(r: float) -> float:
        return (d - 1) * math.log(r) - F.softplus(torch.tensor(hardness * (r - 1), dtype=torch.float64)).item()

    peak = max(1.0, (d - 1) / hardness)  # where r^(d-1) exp(-h r) is largest
    top = log_integrand(peak)
    width = math.sqrt(d) / hardness
    ends = [0.0, max(0.0, peak - 10 * width), peak, peak + 10 * width, peak + 60 * width + 60 / hardness]
    total = sum(
        quad(lambda r: math.exp(log_integrand(r) - top) if r > 0 else float(d == 1), a, b, limit=200)[0]
        for a, b in pairwise(ends)
        if b > a
    )
    return math.log(d) + math.log(total) + top
