"""Vectors of new cells: only these are optimized, the decoder and the mixtures are fixed."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sparsesc import _logging

from ._cells import CellReader
from ._module import CellBatch, Columns, DGDModule

_SCREENING = 0.2  # share of the steps from every start
_SAMPLE = 512  # cells that place the component of a new label
_STARTS_WITHOUT_PRIOR = 10


def project(
    module: DGDModule,
    reader: CellReader,
    *,
    n_steps: int,
    lr: float,
    batch_size: int,
    rng: np.random.Generator,
    progress_bar: bool | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of cells that a model was not trained on, and the vectors of their covariates.

    Every cell starts from the mean of every component; the best after a fifth of the steps is continued. A label that
    the model does not know first gets a mean, which is fitted to up to 512 of its cells.
    """
    frozen = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        search = _Search(module, reader.columns, starts(module, rng), n_steps, lr)
        search.place_new_labels(reader, rng)
        batches, total = reader.batches(batch_size, module.device), -(-len(reader) // batch_size)
        bar = _logging.progress(batches, total=total, desc="Projecting cells", enabled=progress_bar)
        parts = [search.cells(cells)[:2] for _, cells in bar]
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    latent, covariates = (torch.cat(tensors).cpu().numpy() for tensors in zip(*parts, strict=True))
    return latent, covariates


def starts(module: DGDModule, rng: np.random.Generator) -> torch.Tensor:
    """Starting points of new cells: means of the components; without a prior, distant training cells."""
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
        self.means = [mixture.means.detach() for mixture in module.label_mixtures]  # and those of new labels

    def cells(self, cells: CellBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Vectors, vectors of covariates and log joint densities."""
        n, k = len(cells.labels), len(self.at)
        z = self.at.repeat_interleave(n, dim=0)  # all cells at the first start, all at the second, ...
        z_covariate = self.covariate_start(cells.labels).repeat(k, 1)
        many = CellBatch({name: x.repeat(k, 1) for name, x in cells.values.items()}, cells.labels.repeat(k, 1))
        screening = max(1, round(_SCREENING * self.n_steps)) if k > 1 else 0
        z, z_covariate, value = self.climb(many, z, z_covariate, screening)
        best = value.view(k, n).argmax(0) * n + torch.arange(n, device=value.device)
        return self.climb(cells, z[best], z_covariate[best], self.n_steps - screening)

    def climb(
        self, cells: CellBatch, z: torch.Tensor, z_covariate: torch.Tensor, n_steps: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Steps of Adam, independent for each cell; every cell keeps its best vector."""
        best = (z.clone(), z_covariate.clone(), torch.full((len(z),), -torch.inf, device=z.device))
        z, z_covariate = z.clone().requires_grad_(), z_covariate.clone().requires_grad_()
        optimizer = torch.optim.Adam([z, z_covariate], lr=self.lr)
        for step in range(n_steps + 1):
            value = self.objective(cells, z, z_covariate)
            better = value.detach() > best[2]
            for kept, now in zip(best, (z, z_covariate, value), strict=True):
                kept[better] = now.detach()[better]
            if step < n_steps:
                optimizer.zero_grad()
                (-value.sum()).backward()
                optimizer.step()
        return best

    def objective(self, cells: CellBatch, z: torch.Tensor, z_covariate: torch.Tensor) -> torch.Tensor:
        """Log joint density of each cell."""
        out = self.log_cell(cells, z, z_covariate)
        for i, part in enumerate(self.module.split(z_covariate)):
            out = out + self.log_covariate(i, part, cells.labels[:, i])
        return out

    def log_cell(self, cells: CellBatch, z: torch.Tensor, z_covariate: torch.Tensor) -> torch.Tensor:
        """Log joint density of each cell and its vector, given the vectors of the covariates."""
        out = self.module.log_likelihood(cells, z, z_covariate, self.columns)
        mixture = self.module.mixture
        return out if mixture is None else out + mixture.log_density(z, blur=self.module.latent_noise)

    def log_covariate(self, i: int, z_covariate: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Log density of a covariate's vector; a new label has its fitted mean and the mean precision of the others."""
        mixture = self.module.label_mixtures[i]
        known = len(mixture.means)
        out = mixture.log_density(z_covariate, torch.where(labels < known, labels, -1))
        if len(self.means[i]) == known:
            return out
        precision = mixture.log_precisions.mean(0)
        gap = (z_covariate - self.means[i][labels.clamp(min=0)]).square() * precision.exp()
        new = 0.5 * (precision - gap - np.log(2 * np.pi)).sum(-1)
        return torch.where(labels >= known, new, out)

    def covariate_start(self, labels: torch.Tensor) -> torch.Tensor:
        """Mean of the label, or of all labels if it is missing."""
        parts = [
            torch.where(labels[:, i, None] >= 0, means[labels[:, i].clamp(min=0)], means.mean(0))
            for i, means in enumerate(self.means)
        ]
        return torch.cat(parts, dim=1) if parts else self.at.new_zeros(len(labels), 0)

    def place_new_labels(self, reader: CellReader, rng: np.random.Generator) -> None:
        """Fit means of labels that the model does not know, together with the vectors of some of their cells."""
        for i, unseen in enumerate(reader.new_labels):
            known = len(self.module.label_mixtures[i].means)
            self.means[i] = torch.cat([self.means[i], self.means[i].mean(0, keepdim=True).repeat(len(unseen), 1)])
            for code in range(known, known + len(unseen)):
                rows = np.flatnonzero(reader.labels[:, i] == code)
                rows = np.sort(rng.permutation(rows)[:_SAMPLE])
                self.means[i][code] = self._place(reader.read(rows, self.module.device), i, code)

    def _place(self, cells: CellBatch, i: int, code: int) -> torch.Tensor:
        """The mean of a new label under which its cells are most likely, if all of them are at this mean."""
        z, z_covariate, _ = self.cells(cells)
        z = nn.Parameter(z)
        mean = nn.Parameter(self.means[i][code].clone())
        optimizer = torch.optim.Adam([z, mean], lr=self.lr)
        width = self.module.n_latent_covariate
        for _ in range(self.n_steps):
            others = z_covariate[:, : i * width], z_covariate[:, (i + 1) * width :]
            at = torch.cat([others[0], mean.expand(len(z), -1), others[1]], dim=1)
            optimizer.zero_grad()
            (-self.log_cell(cells, z, at).mean()).backward()
            optimizer.step()
        return mean.detach()
