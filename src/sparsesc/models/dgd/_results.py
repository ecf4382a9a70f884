"""What a fitted deep generative decoder says about cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from sparsesc._values import listing

from ._module import DGDModule
from ._setup import DGDSetup

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


class DGDResults(DGDSetup):
    """Vectors, clusters, expression and likelihoods of cells of the training, and of new ones with their vectors."""

    module: DGDModule
    obs_names_: np.ndarray

    def get_latent_representation(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        *,
        covariates: bool = False,
    ) -> np.ndarray:
        """Vectors of cells of the training.

        Parameters
        ----------
        adata
            Some of these cells, found by their names. ``None``: all.
        indices
            Rows to take. ``None``: all.
        covariates
            Give the vectors of the covariates instead.

        Returns
        -------
        Cells x dimensions, float32.

        Raises
        ------
        KeyError
            If a cell was not in the training: new cells are placed by :meth:`project`.
        """
        self._check_if_trained(message="This DGD was not trained: vectors are where they start. Run model.train().")
        rows = self._rows(adata)
        rows = rows if indices is None else rows[np.asarray(indices)]
        found = self.module.covariate_latent if covariates else self.module.latent
        return found.detach().cpu().numpy()[rows]

    def get_responsibilities(
        self, adata: AnnData | MuData | None = None, *, latent: np.ndarray | None = None
    ) -> pd.DataFrame:
        """Posterior probabilities of the components.

        Parameters
        ----------
        adata
            Cells of the training, found by their names (``None``: all), or new cells with their `latent`.
        latent
            What :meth:`project` gave for them.

        Returns
        -------
        Cells x components; rows sum to one.

        Raises
        ------
        KeyError
            If a cell was not in the training and `latent` was not given.
        ValueError
            If the model has no prior, or `latent` does not fit.
        """
        mixture = self.module.mixture
        if mixture is None:
            msg = "With prior=None there are no components. Cluster the latent vectors, or fit with prior='gmm'."
            raise ValueError(msg)
        z = self._latent(adata, latent)
        with torch.no_grad():
            found = mixture.responsibilities(torch.from_numpy(z).to(self.module.device)).cpu().numpy()
        return pd.DataFrame(found, index=self._names(adata, len(z)), columns=[str(k) for k in range(found.shape[1])])

    def predict_clusters(
        self,
        adata: AnnData | MuData | None = None,
        *,
        latent: np.ndarray | None = None,
        key_added: str | None = None,
    ) -> pd.Series:
        """The most probable component of each cell.

        Parameters
        ----------
        adata, latent
            As in :meth:`get_responsibilities`.
        key_added
            Write the result to the cells as well (to those of the model if `adata` is ``None``).

        Returns
        -------
        Names of components, categorical. Components without a cell stay categories. With `key_added` also:

        ``obs[key_added]``
            The same.
        ``obsm["{key_added}_responsibilities"]``
            Cells x components, float32.

        Raises
        ------
        KeyError
            If a cell was not in the training and `latent` was not given.
        ValueError
            If the model has no prior, or `latent` does not fit.
        """
        table = self.get_responsibilities(adata, latent=latent)
        names = pd.Categorical.from_codes(table.to_numpy().argmax(1), categories=table.columns)
        found = pd.Series(names, index=table.index, name=key_added or "cluster")
        if key_added is not None:
            target = self.adata if adata is None else adata
            if target is None:
                msg = "This model was loaded without cells: pass the cells that key_added should be written to."
                raise ValueError(msg)
            target.obs[key_added] = found.to_numpy() if target.n_obs == len(found) else found
            target.obsm[f"{key_added}_responsibilities"] = table.to_numpy(dtype=np.float32)
        return found

    def get_normalized_expression(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        *,
        latent: np.ndarray | None = None,
        covariate_latent: np.ndarray | None = None,
        transform_batch: str | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: float = 1.0,
        modality: str | None = None,
        batch_size: int = 1024,
    ) -> pd.DataFrame:
        """What the decoder expects of cells.

        Parameters
        ----------
        adata, latent
            Cells of the training, found by their names (``None``: all), or new cells with what :meth:`project` gave.
        indices
            Rows to take. ``None``: all.
        covariate_latent
            Vectors of the covariates of new cells, from ``project(..., covariates=True)``. ``None``: the means of
            their labels.
        transform_batch
            Decode all cells as if they were of this batch.
        gene_list
            Features to give. ``None``: all.
        library_size
            With counts: what the values of a cell sum to (over all features).
        modality
            With a MuData: which one. ``None``: the first.
        batch_size
            Cells at once.

        Returns
        -------
        Cells x features. Of counts: shares x `library_size`; with ``"gaussian"``: means; with ``"bernoulli"``:
        probabilities.

        Raises
        ------
        KeyError
            If a cell was not in the training, or a feature, batch or modality is unknown.
        ValueError
            If `latent` does not fit.
        """
        modality = next(iter(self._layers)) if modality is None else modality
        if modality not in self._layers:
            msg = f"Unknown modality {modality!r}: the model has {listing(self._layers)}."
            raise KeyError(msg)
        names = self._features[modality]
        columns = np.arange(len(names)) if gene_list is None else names.get_indexer(list(gene_list))
        if (columns < 0).any():
            msg = f"Unknown features: {listing(np.asarray(gene_list)[columns < 0])}."
            raise KeyError(msg)
        z, own = self._vectors(adata, latent, covariate_latent, transform_batch)
        rows = np.arange(len(z)) if indices is None else np.asarray(indices)
        placed, apart = torch.from_numpy(z[rows]), torch.from_numpy(own[rows])
        head, device = self.module.heads[modality], self.module.device
        with torch.no_grad():
            parts = [
                head.expected(self.module.hidden(a.to(device), b.to(device))).cpu().numpy()[:, columns]
                for a, b in zip(placed.split(batch_size), apart.split(batch_size), strict=True)
            ]
        values = np.concatenate(parts) * (library_size if self._likelihoods[modality] == "nb" else 1)
        return pd.DataFrame(values, index=self._names(adata, len(rows), rows), columns=names[columns])

    def get_log_likelihood(
        self,
        adata: AnnData | MuData | None = None,
        *,
        layer: str | Mapping[str, str | None] | None = None,
        latent: np.ndarray | None = None,
        covariate_latent: np.ndarray | None = None,
        batch_size: int = 256,
    ) -> np.ndarray:
        """Log probability of each cell's values given its vectors, summed over features.

        Parameters
        ----------
        adata, latent, covariate_latent
            As in :meth:`get_normalized_expression`.
        layer
            Where values are, for example counts that were held out by :func:`sparsesc.pp.thin_counts`; ``None``: where
            they were in the training. The size of a cell is the sum of these values.
        batch_size
            Cells at once.

        Returns
        -------
        One number a cell.

        Raises
        ------
        KeyError
            If a cell was not in the training, or a layer is missing.
        ValueError
            If values do not fit their likelihood.
        """
        cells = self.adata if adata is None else adata
        if cells is None:
            msg = "This model was loaded without cells: pass them."
            raise ValueError(msg)
        reader = self._reader(cells, layer)
        z, own = (torch.from_numpy(found) for found in self._vectors(adata, latent, covariate_latent, None))
        device, out = self.module.device, []
        with torch.no_grad():
            for rows, some in reader.batches(batch_size, device):
                out.append(self.module.log_likelihood(some, z[rows].to(device), own[rows].to(device), reader.columns))
        return torch.cat(out).cpu().numpy()

    def _rows(self, adata: AnnData | MuData | None) -> np.ndarray:
        """Positions of cells among those of the training, by name."""
        if adata is None:
            return np.arange(len(self.obs_names_))
        rows = pd.Index(self.obs_names_).get_indexer(adata.obs_names.astype(str))
        if (rows < 0).any():
            missing = adata.obs_names[rows < 0]
            msg = (
                f"{len(missing)} of {adata.n_obs} cells were not in the training: {listing(missing)}. "
                "Place them by model.project(adata), and pass what it gives as latent. A saved model needs no cells "
                "for that: DGD.load(folder, adata=False)."
            )
            raise KeyError(msg)
        return rows

    def _names(self, adata: AnnData | MuData | None, n: int, rows: np.ndarray | None = None) -> pd.Index:
        """Names of cells, or positions where there are none."""
        names = pd.Index(self.obs_names_) if adata is None else adata.obs_names
        if rows is not None and rows.max(initial=-1) < len(names):
            return names[rows]
        return names if len(names) == n else pd.RangeIndex(n)

    def _latent(self, adata: AnnData | MuData | None, latent: np.ndarray | None) -> np.ndarray:
        if latent is None:
            return self.get_latent_representation(adata)
        z = np.ascontiguousarray(latent, dtype=np.float32)
        n = z.shape[0] if adata is None else adata.n_obs
        if z.shape != (n, self.module.n_latent):
            msg = f"latent must be {n} cells x {self.module.n_latent} dimensions, found shape {z.shape}."
            raise ValueError(msg)
        return z

    def _vectors(
        self,
        adata: AnnData | MuData | None,
        latent: np.ndarray | None,
        covariate_latent: np.ndarray | None,
        batch: str | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of cells and those of their covariates."""
        z = self._latent(adata, latent)
        if covariate_latent is not None:
            own = np.array(covariate_latent, dtype=np.float32)
        elif latent is None:
            own = self.get_latent_representation(adata, covariates=True)
        else:
            own = self._label_means(adata, len(z))
        if own.shape != (len(z), self.module.covariate_latent.shape[1]):
            msg = f"covariate_latent must be {len(z)} x {self.module.covariate_latent.shape[1]}, found {own.shape}."
            raise ValueError(msg)
        if batch is not None:
            labels = self._covariates.get(self._asked["batch_key"], pd.Index([]))
            if batch not in labels:
                msg = f"Unknown batch {batch!r}: the model has {listing(labels)}."
                raise KeyError(msg)
            mean = self.module.labelled_mixtures[0].means[labels.get_loc(batch)]
            own[:, : len(mean)] = mean.detach().cpu().numpy()
        return z, own

    def _label_means(self, adata: AnnData | MuData | None, n: int) -> np.ndarray:
        """Means of the labels of new cells; of all labels where the model does not have theirs."""
        codes = np.full((n, len(self._covariates)), -1) if adata is None else self._label_codes(adata)
        parts = [np.zeros((n, 0), dtype=np.float32)]
        for i, mixture in enumerate(self.module.labelled_mixtures):
            means = mixture.means.detach().cpu().numpy()
            parts.append(np.vstack([means, means.mean(0)])[codes[:, i]])  # -1: the last row
        return np.hstack(parts)
