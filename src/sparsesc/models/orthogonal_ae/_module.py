"""The network of the orthogonal autoencoder, and its loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.distributions import NegativeBinomial
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import nn
from torch.nn import functional as F

_LEAST_RATE = 1e-8  # at a rate of 0, a count would be impossible
_LEAST_MEAN = 1e-4


class OrthogonalAEModule(BaseModuleClass):
    r"""Genes -> hidden -> units -> hidden -> genes, with softplus after every layer.

    Parameters
    ----------
    n_genes, n_batch, n_latent, n_hidden
        Sizes. With one batch, the decoder takes no batch.
    orthogonality
        Weight of the penalty.
    gene_likelihood
        ``"poisson"`` or ``"nb"``.
    depth
        Counts that a cell is scaled to.
    mean
        Mean of every gene at this depth.
    """

    def __init__(
        self,
        *,
        n_genes: int,
        n_batch: int,
        n_latent: int,
        n_hidden: int,
        orthogonality: float,
        gene_likelihood: str,
        depth: float,
        mean: np.ndarray,
    ) -> None:
        super().__init__()
        self.n_batch = n_batch if n_batch > 1 else 0
        self.n_latent = n_latent
        self.orthogonality = orthogonality
        self.gene_likelihood = gene_likelihood
        # a buffer: a model that is loaded with other cells keeps the depth of its training
        self.register_buffer("depth", torch.tensor(depth, dtype=torch.float32))
        self.encoder = nn.Sequential(
            nn.Linear(n_genes, n_hidden), nn.Softplus(), nn.Linear(n_hidden, n_latent), nn.Softplus()
        )
        self.decoder = nn.Sequential(
            nn.Linear(n_latent + self.n_batch, n_hidden), nn.Softplus(), nn.Linear(n_hidden, n_genes), nn.Softplus()
        )
        for layer in (*self.encoder, *self.decoder):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
        start = torch.as_tensor(np.maximum(mean, _LEAST_MEAN), dtype=torch.float32)
        with torch.no_grad():  # the first output is the mean cell, up to what the weights add
            self.decoder.get_parameter("2.bias").copy_(start + torch.log(-torch.expm1(-start)))
        if gene_likelihood == "nb":
            self.log_dispersion = nn.Parameter(torch.zeros(n_genes))

    def orthogonality_gap(self) -> torch.Tensor:
        """Frobenius norm of I - W W^T, with the weights W into the representation (units x hidden); has a gradient."""
        W = self.encoder.get_parameter("2.weight")
        return torch.linalg.matrix_norm(torch.eye(len(W), dtype=W.dtype, device=W.device) - W @ W.T)

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        """Input of the encoder from counts, cells x genes."""
        return torch.log1p(x * (self.depth / x.sum(1, keepdim=True).clamp(min=1)))

    def _get_inference_input(self, tensors: dict[str, torch.Tensor], **kwargs: Any) -> dict[str, torch.Tensor]:
        return {"x": tensors[REGISTRY_KEYS.X_KEY]}

    @auto_move_data
    def inference(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Activations of the units, cells x units."""
        return {"z": self.encoder(self.scaled(x))}

    def _get_generative_input(
        self, tensors: dict[str, torch.Tensor], inference_outputs: dict[str, torch.Tensor], **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        return {
            "z": inference_outputs["z"],
            "library": tensors[REGISTRY_KEYS.X_KEY].sum(1, keepdim=True),
            "batch_index": tensors[REGISTRY_KEYS.BATCH_KEY],
        }

    @auto_move_data
    def generative(
        self, z: torch.Tensor, library: torch.Tensor, batch_index: torch.Tensor
    ) -> dict[str, torch.distributions.Distribution]:
        """The distribution of the counts of cells of this depth."""
        if self.n_batch:
            z = torch.cat([z, F.one_hot(batch_index.squeeze(-1).long(), self.n_batch).to(z.dtype)], dim=1)
        rate = self.decoder(z) * (library / self.depth) + _LEAST_RATE
        if self.gene_likelihood == "nb":
            return {"px": NegativeBinomial(mu=rate, theta=self.log_dispersion.exp())}
        return {"px": torch.distributions.Poisson(rate, validate_args=False)}

    def loss(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, torch.Tensor],
        generative_outputs: dict[str, torch.distributions.Distribution],
    ) -> LossOutput:
        """Negative log likelihood and penalty, both summed over genes, so that their ratio is that per gene."""
        x = tensors[REGISTRY_KEYS.X_KEY]
        misfit = -generative_outputs["px"].log_prob(x).sum(1)
        gap = self.orthogonality_gap()
        loss = misfit.mean() + self.orthogonality * x.shape[1] * gap
        return LossOutput(loss=loss, reconstruction_loss=misfit, extra_metrics={"orthogonality_gap": gap.detach()})

    def sample(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Not available: the representation has no prior to sample from."""
        msg = "An OrthogonalAE has no prior over its units: cells cannot be sampled from it."
        raise NotImplementedError(msg)
