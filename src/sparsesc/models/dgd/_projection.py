"""Vectors of new cells: the decoder and the mixtures stay as they are, only the vectors move."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from sparsesc import _logging

from ._cells import CellReader
from ._module import Cells, Columns, DGDModule

_SCREENING = 0.2  # share of the steps that every start gets
_SAMPLE = 512  # cells that place the component of a new label
_STARTS_WITHOUT_PRIOR = 10


class Projection(NamedTuple):
    """What was found for new cells."""

    latent: np.ndarray
    """Cells x dimensions."""
    covariates: np.ndarray
    """Cells x dimensions of all covariates."""
    objective: np.ndarray
    """Log joint density of each cell and its vectors."""


def project(
    module: DGDModule,
    reader: CellReader,
    *,
    n_steps: int,
    lr: float,
    batch_size: int,
    rng: np.random.Generator,
    progress_bar: bool | None,
) -> Projection:
    """Vectors of cells that a model was not trained on.

    Every cell starts from the mean of every component; the best after a fifth of the steps goes on. A label that the
    model does not know gets a mean of its own first, which up to 512 of its cells place together.
    """
    frozen = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        search = _Search(module, reader.columns, starts(module, rng), n_steps, lr)
        search.place_new_labels(reader, rng)
        parts = []
        for _, cells in _logging.progress(
            reader.batches(batch_size, module.device),
            total=-(-len(reader) // batch_size),
            desc="Projecting cells",
            enabled=progress_bar,
        ):
            parts.append(search.cells(cells))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return Projection(*(torch.cat(found).cpu().numpy() for found in zip(*parts, strict=True)))


def starts(module: DGDModule, rng: np.random.Generator) -> torch.Tensor:
    """Where a new cell may start: means of the components; without a prior, cells of the training far apart."""
    if module.mixture is not None:
        return module.mixture.means.detach()
    latent = module.latent.detach()
    chosen = [int(rng.integers(len(latent)))]
    nearest = torch.full((len(latent),), float("inf"), device=latent.device)
    for _ in range(min(_STARTS_WITHOUT_PRIOR, len(latent)) - 1):
        nearest = torch.minimum(nearest, (latent - latent[chosen[-1]]).square().sum(1))
        chosen.append(int(nearest.argmax()))
    return latent[chosen]


class _Search:
    """Gradient ascent on the log joint density of cells and their vectors."""

    def __init__(self, module: DGDModule, columns: Columns, at: torch.Tensor, n_steps: int, lr: float) -> None:
        self.module = module
        self.columns = {name: None if c is None else c.to(module.device) for name, c in columns.items()}
        self.at, self.n_steps, self.lr = at, n_steps, lr
        self.means = [mixture.means.detach() for mixture in module.labelled_mixtures]  # and those of new labels

    def cells(self, cells: Cells) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Vectors, vectors of covariates and log joint densities."""
        n, k = len(cells.labels), len(self.at)
        z = self.at.repeat_interleave(n, dim=0)  # all cells at the first start, all at the second, ...
        own = self.covariate_start(cells.labels).repeat(k, 1)
        many = Cells({name: x.repeat(k, 1) for name, x in cells.values.items()}, cells.labels.repeat(k, 1))
        screening = max(1, round(_SCREENING * self.n_steps)) if k > 1 else 0
        z, own, value = self.climb(many, z, own, screening)
        best = value.view(k, n).argmax(0) * n + torch.arange(n, device=value.device)
        return self.climb(cells, z[best], own[best], self.n_steps - screening)

    def climb(
        self, cells: Cells, z: torch.Tensor, own: torch.Tensor, n_steps: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Steps of Adam, each cell for itself; every cell keeps the best place that it came by."""
        best = (z.clone(), own.clone(), torch.full((len(z),), -torch.inf, device=z.device))
        z, own = z.clone().requires_grad_(), own.clone().requires_grad_()
        optimizer = torch.optim.Adam([z, own], lr=self.lr)
        for step in range(n_steps + 1):
            value = self.objective(cells, z, own)
            better = value.detach() > best[2]
            for kept, now in zip(best, (z, own, value), strict=True):
                kept[better] = now.detach()[better]
            if step < n_steps:
                optimizer.zero_grad()
                (-value.sum()).backward()
                optimizer.step()
        return best

    def objective(self, cells: Cells, z: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Log joint density of each cell."""
        out = self.module.log_likelihood(cells, z, own, self.columns)
        if self.module.mixture is not None:
            out = out + self.module.mixture.log_density(z, blur=self.module.latent_noise)
        for i, part in enumerate(self.module.split(own)):
            out = out + self.log_covariate(i, part, cells.labels[:, i])
        return out

    def log_covariate(self, i: int, own: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """As the mixture has it; a new label has its own mean and the average precision of the others."""
        mixture = self.module.labelled_mixtures[i]
        known = len(mixture.means)
        out = mixture.log_density(own, torch.where(labels < known, labels, -1))
        if len(self.means[i]) == known:
            return out
        precision = mixture.log_precisions.mean(0)
        gap = (own - self.means[i][labels.clamp(min=0)]).square() * precision.exp()
        new = 0.5 * (precision - gap - np.log(2 * np.pi)).sum(-1)
        return torch.where(labels >= known, new, out)

    def covariate_start(self, labels: torch.Tensor) -> torch.Tensor:
        """Mean of the label; of all labels where it is missing."""
        parts = [
            torch.where(labels[:, i, None] >= 0, means[labels[:, i].clamp(min=0)], means.mean(0))
            for i, means in enumerate(self.means)
        ]
        return torch.cat(parts, dim=1) if parts else self.at.new_zeros(len(labels), 0)

    def place_new_labels(self, reader: CellReader, rng: np.random.Generator) -> None:
        """Means of labels that the model does not know, fitted together with the vectors of some of their cells."""
        for i, unseen in enumerate(reader.new_labels):
            known = len(self.module.labelled_mixtures[i].means)
            self.means[i] = torch.cat([self.means[i], self.means[i].mean(0, keepdim=True).repeat(len(unseen), 1)])
            for code in range(known, known + len(unseen)):
                rows = np.flatnonzero(reader.labels[:, i] == code)
                rows = np.sort(rng.permutation(rows)[:_SAMPLE])
                self.means[i][code] = self._place(reader.read(rows, self.module.device), i, code)

    def _place(self, cells: Cells, i: int, code: int) -> torch.Tensor:
        """The mean that makes the cells of a new label most likely, all of them at it."""
        z, own, _ = self.cells(cells)
        z = nn.Parameter(z)
        mean = nn.Parameter(self.means[i][code].clone())
        optimizer = torch.optim.Adam([z, mean], lr=self.lr)
        width = self.module.n_latent_covariate
        for _ in range(self.n_steps):
            at = torch.cat([own[:, : i * width], mean.expand(len(z), -1), own[:, (i + 1) * width :]], dim=1)
            value = self.module.log_likelihood(cells, z, at, self.columns)
            if self.module.mixture is not None:
                value = value + self.module.mixture.log_density(z, blur=self.module.latent_noise)
            optimizer.zero_grad()
            (-value.mean()).backward()
            optimizer.step()
        return mean.detach()
