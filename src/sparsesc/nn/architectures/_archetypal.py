"""Decoder rows that stay near the cells: mixtures of their k-means centres (Fel et al. 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sparsesc.nn._initialize import encoder_scale, kmeans_centres

from ._batchtopk import BatchTopK

if TYPE_CHECKING:
    import torch

    from ._base import Parameters

OFFSET = 0.5  # delta: length of the offset, at most, as a share of the mixture's
_TOTAL = 10.0  # what the stored weights of a feature sum to: a step of the optimiser changes W by a tenth of it
_SAMPLE = 1024  # cells that set the encoder's scale


class Archetypal(BatchTopK):
    r"""BatchTopK whose dictionary is a relaxed archetypal one (RA-SAE).

    A decoder row is the direction of a mixture of data points plus a short offset,

    .. math::

        D_i = \frac{W_i C + \Lambda_i}{|W_i C + \Lambda_i|}, \qquad W_{ij} \ge 0, \quad \sum_j W_{ij} = 1, \qquad
        |\Lambda_i| \le \delta \, |W_i C|

    with :math:`C` the k-means centres of the training cells, seen from their mean, as many as features. The bound is
    relative, so a row is never further than :math:`\arcsin \delta` from the cone of the centres. Adam steps on
    :math:`W` and :math:`\Lambda`; after each, :math:`W` goes back to its simplex (negative weights to zero, then the
    sum) and :math:`\Lambda` into its ball. Features start at the centres, which the cells alone determine.
    """

    name: ClassVar[str] = "archetypal"
    by_batch: ClassVar[bool | None] = None  # the compiled kernels know no mixtures

    def extra_parameters(self, start: dict[str, np.ndarray], X: np.ndarray) -> dict[str, np.ndarray]:
        """Weights of the centres and offsets; encoder and decoder move to the centres."""
        self.centres = kmeans_centres(X, len(start["D"]))
        self._on_device: torch.Tensor | None = None
        weights = first_weights(len(start["D"]), len(self.centres))
        D = weights @ self.centres
        D /= np.maximum(np.linalg.norm(D, axis=1, keepdims=True), np.float32(1e-12))
        E = D * np.float32(encoder_scale(X[:_SAMPLE], D, self.config.k))
        return {"D": D, "E": E, "weights": weights * np.float32(_TOTAL), "offset": np.zeros_like(D)}

    def decoder(self, p: Parameters) -> torch.Tensor:
        """Unit rows, differentiable in weights and offsets."""
        rows = self._mixture(p) + p["offset"]
        return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)

    def constrain(self, p: Parameters) -> None:
        """Weights to the simplex, offsets into their ball; ``D`` keeps what the decoder then is."""
        weights, offset = p["weights"], p["offset"]
        weights.clamp_(min=0)
        weights *= _TOTAL / weights.sum(1, keepdim=True).clamp_min(1e-12)
        longest = OFFSET * self._mixture(p).norm(dim=1, keepdim=True)
        offset *= (longest / offset.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
        p["D"].copy_(self.decoder(p))

    def _mixture(self, p: Parameters) -> torch.Tensor:
        import torch

        if self._on_device is None:
            self._on_device = torch.from_numpy(self.centres).to(p["weights"].device)
        return p["weights"] @ self._on_device / _TOTAL


def first_weights(n_features: int, n_centres: int) -> np.ndarray:
    """Rows of the simplex, (features, centres): a centre for each; further features lie midway between two of them."""
    feature = np.arange(n_features)
    weights = np.zeros((n_features, n_centres), np.float32)
    weights[feature, feature % n_centres] += 0.5
    weights[feature, (feature + feature // n_centres) % n_centres] += 0.5
    return weights
