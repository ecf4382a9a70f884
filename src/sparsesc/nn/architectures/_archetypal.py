"""Decoder rows that stay near the cells: mixtures of their k-means centers (Fel et al. 2025)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from sparsesc.nn._initialize import encoder_scale, kmeans_centers

from ._base import Parameters
from ._batchtopk import BatchTopK

OFFSET = 0.5  # delta: largest length of the offset, as a share of the mixture's length
_TOTAL = 10.0  # what the stored weights of a feature sum to: in W, a step of the optimizer is a tenth of its size
_SAMPLE = 1024  # cells that set the encoder's scale


class Archetypal(BatchTopK):
    r"""BatchTopK whose features lie near mixtures of cells: a relaxed archetypal dictionary (RA-SAE).

    Notes
    -----
    A decoder row is the direction of a mixture of data points plus a short offset,

    .. math::

        D_i = \frac{W_i C + \Lambda_i}{|W_i C + \Lambda_i|}, \qquad W_{ij} \ge 0, \quad \sum_j W_{ij} = 1, \qquad
        |\Lambda_i| \le \delta \, |W_i C|

    with :math:`C` the k-means centers of the training cells, relative to their mean, as many as features. The bound
    is relative, so a row is never further than :math:`\arcsin \delta` from the cone of the centers; :math:`\delta` is
    0.5. Adam steps on :math:`W` and :math:`\Lambda`; after each step, :math:`W` is projected to its simplex (negative
    weights become zero, then the sum becomes one) and :math:`\Lambda` into its ball. Features start at the centers,
    which depend only on the cells.

    References
    ----------
    Fel, T. et al. (2025). Archetypal SAE: adaptive and stable dictionary learning for concept extraction in large
    vision models. arXiv:2502.12892.
    """

    name: ClassVar[str] = "archetypal"
    by_batch: ClassVar[bool | None] = None  # the compiled kernels do not have mixtures

    def extra_parameters(self, start: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """Weights of the centers, and offsets; encoder and decoder move to the centers."""
        self.centers = kmeans_centers(X, len(start["D"]))
        self._on_device: torch.Tensor | None = None
        weights = initial_weights(len(start["D"]), len(self.centers))
        D = weights @ self.centers
        D /= np.maximum(np.linalg.norm(D, axis=1, keepdims=True), np.float32(1e-12))
        E = D * np.float32(encoder_scale(X[:_SAMPLE], D, self.config.k))
        return {"D": D, "E": E, "weights": weights * np.float32(_TOTAL), "offset": np.zeros_like(D)}

    def decoder(self, p: Parameters) -> torch.Tensor:
        """Unit rows, differentiable in weights and offsets."""
        rows = self._mixture(p) + p["offset"]
        return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)

    def constrain(self, p: Parameters) -> None:
        """Weights to the simplex, offsets into their ball; ``D`` becomes the decoder that results."""
        weights, offset = p["weights"], p["offset"]
        weights.clamp_(min=0)
        weights *= _TOTAL / weights.sum(1, keepdim=True).clamp_min(1e-12)
        longest = OFFSET * self._mixture(p).norm(dim=1, keepdim=True)
        offset *= (longest / offset.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
        p["D"].copy_(self.decoder(p))

    def _mixture(self, p: Parameters) -> torch.Tensor:
        if self._on_device is None:
            self._on_device = torch.from_numpy(self.centers).to(p["weights"].device)
        return p["weights"] @ self._on_device / _TOTAL


def initial_weights(n_features: int, n_centers: int) -> np.ndarray:
    """Points of the simplex, (features, centers): one center each; further features lie midway between two centers."""
    feature = np.arange(n_features)
    weights = np.zeros((n_features, n_centers), np.float32)
    weights[feature, feature % n_centers] += 0.5
    weights[feature, (feature + feature // n_centers) % n_centers] += 0.5
    return weights
