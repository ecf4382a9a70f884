"""A mixture of Gaussians with diagonal covariances over latent vectors, and the priors on it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from ._priors import log_dirichlet, log_precision_normal, log_softball, sample_ball

_NARROWEST = 0.01  # standard deviation at the start of a component on a single cell


class GaussianMixture(nn.Module):
    """Mixture of Gaussians whose weights, means and precisions are trained by gradients.

    Parameters
    ----------
    n_components
        Number of components.
    n_latent
        Number of dimensions.
    radius, hardness
        Prior of the means, :func:`~sparsesc.models.dgd._priors.log_softball`, from which they start.
    sd
        Standard deviation that components start with, before :meth:`start_at`; its log precision is the center of
        their prior.
    alpha
        Dirichlet parameter of the weights, which start equal.

    Notes
    -----
    Draws from torch's global generator, which the model forks and seeds.
    """

    def __init__(
        self, n_components: int, n_latent: int, *, radius: float, hardness: float, sd: float, alpha: float
    ) -> None:
        super().__init__()
        self.radius, self.hardness, self.sd, self.alpha = radius, hardness, sd, alpha
        self.means = nn.Parameter(sample_ball(n_components, n_latent, radius))
        self.log_precisions = nn.Parameter(torch.full((n_components, n_latent), -2 * math.log(sd)))
        self.logits = nn.Parameter(torch.zeros(n_components))

    @property
    def log_weights(self) -> torch.Tensor:
        """Logarithms of the components' shares."""
        return torch.log_softmax(self.logits, dim=0)

    def log_components(self, z: torch.Tensor, blur: float = 0.0) -> torch.Tensor:
        """Log density of cells under each component, without its weight: cells x components.

        With `blur`, its expectation when noise of this standard deviation is added to the cells. A component that is
        narrower than the noise of the training, such as one without cells, then has no high density at its mean.
        """
        gap = ((z.unsqueeze(-2) - self.means).square() + blur**2) * self.log_precisions.exp()
        constant = z.shape[-1] * math.log(2 * math.pi)
        return 0.5 * (self.log_precisions.sum(-1) - gap.sum(-1) - constant)

    def log_density(self, z: torch.Tensor, labels: torch.Tensor | None = None, *, blur: float = 0.0) -> torch.Tensor:
        """Log density of cells together with their label, a component; of cells alone if they have none (-1).

        With `blur`, that of :meth:`log_components`, which is at most the expectation under the noise.
        """
        single = self.log_components(z, blur) + self.log_weights
        mixed = torch.logsumexp(single, dim=-1)
        if labels is None:
            return mixed
        labeled = single.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return torch.where(labels >= 0, labeled, mixed)

    def responsibilities(self, z: torch.Tensor) -> torch.Tensor:
        """Posterior probabilities of the components, cells x components."""
        return torch.softmax(self.log_components(z) + self.log_weights, dim=-1)

    def log_prior(self) -> torch.Tensor:
        """Log density of means, precisions and weights under their priors."""
        return (
            log_softball(self.means, self.radius, self.hardness).sum()
            + log_precision_normal(self.log_precisions, self.sd)
            + log_dirichlet(self.log_weights, self.alpha)
        )

    def sample(self, n: int) -> torch.Tensor:
        """Vectors drawn from the mixture, n x dimensions."""
        with torch.no_grad():
            component = torch.multinomial(self.log_weights.exp(), n, replacement=True)
            noise = torch.randn(n, self.means.shape[1], device=self.means.device)
            return self.means[component] + noise * (-0.5 * self.log_precisions[component]).exp()

    def start_at(self, z: np.ndarray, rng: np.random.Generator, *, blur: float = 0.0) -> None:
        """Set means, weights and variances to those of clusters of vectors; variances include that of the blur.

        Components that start narrower than the noise of the training lose their cells to the first wider one.
        """
        from sklearn.cluster import KMeans

        n = min(len(self.means), len(z))
        clusters = KMeans(n, n_init=4, random_state=int(rng.integers(2**31 - 1))).fit(z)
        variances = np.stack([z[clusters.labels_ == k].var(0) for k in range(n)]) + max(blur, _NARROWEST) ** 2
        with torch.no_grad():
            self.means[:n] = torch.from_numpy(clusters.cluster_centers_)
            self.logits[:n] = torch.from_numpy(np.log(np.bincount(clusters.labels_, minlength=n) + 1))
            self.log_precisions[:n] = torch.from_numpy(-np.log(variances))
