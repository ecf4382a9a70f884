"""The parts of a deep generative decoder: latent vectors, mixtures over them, and a decoder with its heads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import nn

from ._heads import HEADS, Head
from ._mixture import GaussianMixture

type Columns = dict[str, torch.Tensor | None]

EXPRESSION = "expression"  # name of the only modality of an AnnData


def values_key(modality: str) -> str:
    """Key of a modality's values in the registry of scvi-tools."""
    if modality == EXPRESSION:
        return REGISTRY_KEYS.X_KEY
    return f"{REGISTRY_KEYS.X_KEY}_{modality}".replace(".", "__")  # scvi-tools allows no dots


class CellBatch(NamedTuple):
    """Measured values of some cells, and their labels."""

    values: dict[str, torch.Tensor]
    """By modality: cells x features."""
    labels: torch.Tensor
    """Codes of covariates, cells x covariates; -1 where unknown."""


class DGDModule(BaseModuleClass):
    """A free vector for every training cell, mixtures of Gaussians as priors, and a decoder.

    Parameters
    ----------
    n_obs
        Number of training cells.
    n_latent
        Dimensions of a cell's vector.
    features
        By modality: number of features.
    likelihoods
        By modality: a name of :data:`~sparsesc.models.dgd._heads.HEADS`.
    n_components
        Components of the mixture; ``None``: vectors have no prior.
    covariates
        By covariate: number of labels.
    n_latent_covariate
        Dimensions of a cell's vector for each covariate.
    n_hidden, n_layers
        Nodes and number of hidden layers, shared by the modalities.
    sd, covariate_sd
        Standard deviations that the components of the mixtures start with.
    radius, hardness, alpha
        Of the priors, :class:`~sparsesc.models.dgd._mixture.GaussianMixture`.
    latent_noise
        Standard deviation of the noise that is added to vectors in training.
    prior_per_cell
        Count the priors of the mixtures once for every cell instead of once.
    """

    def __init__(
        self,
        *,
        n_obs: int,
        n_latent: int,
        features: dict[str, int],
        likelihoods: dict[str, str],
        n_components: int | None,
        covariates: dict[str, int],
        n_latent_covariate: int,
        n_hidden: int,
        n_layers: int,
        sd: float,
        covariate_sd: float,
        radius: float,
        hardness: float,
        alpha: float,
        latent_noise: float,
        prior_per_cell: bool,
    ) -> None:
        super().__init__()
        self.modalities = list(features)
        self.n_latent, self.n_latent_covariate = n_latent, n_latent_covariate
        self.latent_noise, self.prior_per_cell = latent_noise, prior_per_cell
        priors = {"radius": radius, "hardness": hardness, "alpha": alpha}
        self.latent = nn.Parameter(torch.zeros(n_obs, n_latent))
        self.covariate_latent = nn.Parameter(torch.zeros(n_obs, n_latent_covariate * len(covariates)))
        self.mixture = None if n_components is None else GaussianMixture(n_components, n_latent, sd=sd, **priors)
        self.covariate_mixtures = nn.ModuleList(
            GaussianMixture(n_labels, n_latent_covariate, sd=covariate_sd, **priors) for n_labels in covariates.values()
        )
        layers: list[nn.Module] = []
        width = n_latent + self.covariate_latent.shape[1]
        for _ in range(n_layers):
            layers += [nn.Linear(width, n_hidden), nn.ReLU()]
            width = n_hidden
        self.trunk = nn.Sequential(*layers)
        # not a ModuleDict: names of modalities may have dots, those of modules may not
        self.head_list = nn.ModuleList(HEADS[likelihoods[name]](width, n) for name, n in features.items())

    @property
    def heads(self) -> dict[str, Head]:
        """By modality: from the last hidden layer to its values."""
        return dict(zip(self.modalities, cast("Iterable[Head]", self.head_list), strict=True))

    @property
    def label_mixtures(self) -> list[GaussianMixture]:
        """One mixture per covariate, one component per label."""
        return list(cast("Iterable[GaussianMixture]", self.covariate_mixtures))

    def read(self, tensors: dict[str, torch.Tensor]) -> CellBatch:
        """Cells from a batch of scvi-tools' loader."""
        values = {name: tensors[values_key(name)] for name in self.modalities}
        keys = [key for key in (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.CAT_COVS_KEY) if key in tensors]
        none = torch.zeros(len(values[self.modalities[0]]), 0, dtype=torch.long, device=self.device)
        return CellBatch(values, torch.cat([none, *(tensors[key].long() for key in keys)], dim=1))

    def hidden(self, z: torch.Tensor, z_covariate: torch.Tensor) -> torch.Tensor:
        """Last hidden layer."""
        return self.trunk(torch.cat([z, z_covariate], dim=-1))

    def log_likelihood(
        self, cells: CellBatch, z: torch.Tensor, z_covariate: torch.Tensor, columns: Columns | None = None
    ) -> torch.Tensor:
        """Log probability of each cell's values, summed over features and modalities."""
        hidden = self.hidden(z, z_covariate)
        parts = [
            self.heads[name].log_prob(hidden, x, None if columns is None else columns[name])
            for name, x in cells.values.items()
        ]
        return torch.stack(parts).sum(0)

    def log_latent(self, z: torch.Tensor, z_covariate: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Log density of each cell's vectors: 0 without a prior."""
        out = z.new_zeros(len(z)) if self.mixture is None else self.mixture.log_density(z)
        for i, (mixture, vectors) in enumerate(zip(self.label_mixtures, self.split(z_covariate), strict=True)):
            out = out + mixture.log_density(vectors, labels[:, i])
        return out

    def split(self, z_covariate: torch.Tensor) -> list[torch.Tensor]:
        """The vectors of the covariates, one by one."""
        return list(z_covariate.split(self.n_latent_covariate, dim=-1)) if z_covariate.shape[-1] else []

    def blur(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors with the noise of the training.

        The density of a mixture at free points has no maximum: a component on a few of them can shrink without end.
        Around blurred points it cannot become narrower than the blur.
        """
        return vectors + self.latent_noise * torch.randn_like(vectors) if self.latent_noise else vectors

    def log_prior(self) -> torch.Tensor:
        """Log density of the mixtures' parameters."""
        mixtures = [*self.label_mixtures, *([] if self.mixture is None else [self.mixture])]
        return torch.stack([self.latent.new_zeros(()), *(mixture.log_prior() for mixture in mixtures)]).sum()

    def label_means(self, labels: torch.Tensor) -> torch.Tensor:
        """Means of the components of labels, side by side: the starting vectors of the covariates."""
        means = [mixture.means[labels[:, i]] for i, mixture in enumerate(self.label_mixtures)]
        return torch.cat(means, dim=1) if means else self.latent.new_zeros(len(labels), 0)

    # the interface of scvi-tools

    def on_load(self, model: Any, **kwargs: Any) -> None:
        """Make room for the saved vectors: the model may be loaded with only some of their cells."""
        model._rows(model.adata)
        n = len(model.obs_names_)
        self.latent = nn.Parameter(torch.zeros(n, self.n_latent))
        self.covariate_latent = nn.Parameter(torch.zeros(n, self.covariate_latent.shape[1]))

    def _get_inference_input(self, tensors: dict[str, torch.Tensor], **kwargs: Any) -> dict[str, torch.Tensor]:
        return {"index": tensors[REGISTRY_KEYS.INDICES_KEY].long().ravel()}

    @auto_move_data
    def inference(self, index: torch.Tensor) -> dict[str, torch.Tensor]:
        """Vectors of training cells, by position."""
        return {"z": self.latent[index], "z_covariate": self.covariate_latent[index]}

    def _get_generative_input(
        self, tensors: dict[str, torch.Tensor], inference_outputs: dict[str, torch.Tensor], **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        return inference_outputs

    @auto_move_data
    def generative(self, z: torch.Tensor, z_covariate: torch.Tensor) -> dict[str, torch.Tensor]:
        """Expected values of every modality (of counts: shares), cells x features."""
        hidden = self.hidden(z, z_covariate)
        return {name: head.expected(hidden) for name, head in self.heads.items()}

    def loss(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, torch.Tensor],
        generative_outputs: dict[str, torch.Tensor],
    ) -> LossOutput:
        """Negative log joint density of cells, their vectors and the mixtures; a mean over cells."""
        cells, (z, z_covariate) = self.read(tensors), inference_outputs.values()
        misfit = -self.log_likelihood(cells, z, z_covariate)
        latent = -self.log_latent(z, z_covariate, cells.labels)
        prior = -self.log_prior() / (1 if self.prior_per_cell else len(self.latent))
        return LossOutput(loss=(misfit + latent).mean() + prior, reconstruction_loss=misfit, kl_local=latent)

    def sample(self, n: int) -> torch.Tensor:
        """Latent vectors drawn from the mixture, n x dimensions.

        Raises
        ------
        ValueError
            If there is no prior to draw from.
        """
        if self.mixture is None:
            msg = "With prior=None there is no distribution to draw latent vectors from."
            raise ValueError(msg)
        return self.mixture.sample(n)
