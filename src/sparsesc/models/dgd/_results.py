"""Results of a trained deep generative decoder: vectors, clusters, expression and likelihoods of cells."""

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
    """Results for cells of the training, and for new cells with their vectors."""

    module: DGDModule
    obs_names_: np.ndarray

    def get_latent_representation(
        self, adata: AnnData | MuData | None = None, indices: Sequence[int] | None = None, *, covariates: bool = False
    ) -> np.ndarray:
        """Latent vectors of cells of the training.

        Parameters
        ----------
        adata
            Some of these cells, matched by name. ``None``: all.
        indices
            Rows to take. ``None``: all.
        covariates
            Return the vectors of the covariates instead.

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
        vectors = self.module.covariate_latent if covariates else self.module.latent
        return vectors.detach().cpu().numpy()[rows]

    def get_responsibilities(
        self, adata: AnnData | MuData | None = None, *, latent: np.ndarray | None = None
    ) -> pd.DataFrame:
        """Posterior probabilities of the components of the mixture, the clusters.

        Parameters
        ----------
        adata
            Cells of the training, matched by name (``None``: all), or new cells with their `latent`.
        latent
            Vectors of new cells, from :meth:`project`.

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
            shares = mixture.responsibilities(torch.from_numpy(z).to(self.module.device)).cpu().numpy()
        return pd.DataFrame(shares, index=self._names(adata, len(z)), columns=[str(k) for k in range(shares.shape[1])])

    def predict_clusters(
        self, adata: AnnData | MuData | None = None, *, latent: np.ndarray | None = None, key_added: str | None = None
    ) -> pd.Series:
        """The most probable component of each cell.

        Parameters
        ----------
        adata, latent
            As in :meth:`get_responsibilities`.
        key_added
            Also write the result to the cells (to those of the model if `adata` is ``None``).

        Returns
        -------
        Names of components, categorical. Components without a cell stay categories. With `key_added`, also:

        ``obs[key_added]``
            The names.
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
        clusters = pd.Series(names, index=table.index, name=key_added or "cluster")
        if key_added is not None:
            target = self.adata if adata is None else adata
            if target is None:
                msg = "This model was loaded without cells: pass the cells that key_added should be written to."
                raise ValueError(msg)
            target.obs[key_added] = clusters.to_numpy() if target.n_obs == len(clusters) else clusters
            target.obsm[f"{key_added}_responsibilities"] = table.to_numpy(dtype=np.float32)
        return clusters

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
        """Expected expression of cells, from the decoder.

        Parameters
        ----------
        adata, latent
            Cells of the training, matched by name (``None``: all), or new cells with vectors from :meth:`project`.
        indices
            Rows to take. ``None``: all.
        covariate_latent
            Vectors of the covariates of new cells, from ``project(..., covariates=True)``. ``None``: the means of
            their labels.
        transform_batch
            Decode all cells as if they were of this batch.
        gene_list
            Features to return. ``None``: all.
        library_size
            With counts: sum of the values of a cell (over all features).
        modality
            With a MuData: the modality to decode. ``None``: the first.
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
        z, z_covariate = self._vectors(adata, latent, covariate_latent, transform_batch)
        rows = np.arange(len(z)) if indices is None else np.asarray(indices)
        vectors = [torch.from_numpy(part[rows]).split(batch_size) for part in (z, z_covariate)]
        head, device = self.module.heads[modality], self.module.device
        with torch.no_grad():
            parts = [
                head.expected(self.module.hidden(a.to(device), b.to(device))).cpu().numpy()[:, columns]
                for a, b in zip(*vectors, strict=True)
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
            Layer with the values, for example counts that :func:`sparsesc.pp.thin_counts` held out; ``None``: as in
            the training. The size of a cell is the sum of these values.
        batch_size
            Cells at once.

        Returns
        -------
        One number per cell.

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
        z, z_covariate = (torch.from_numpy(part) for part in self._vectors(adata, latent, covariate_latent, None))
        device, out = self.module.device, []
        with torch.no_grad():
            for rows, batch in reader.batches(batch_size, device):
                at = z[rows].to(device), z_covariate[rows].to(device)
                out.append(self.module.log_likelihood(batch, at[0], at[1], reader.columns))
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
                "Place them with model.project(adata), and pass the result as latent. A saved model needs no cells "
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
        """Vectors of cells, and those of their covariates."""
        z = self._latent(adata, latent)
        if covariate_latent is not None:
            z_covariate = np.array(covariate_latent, dtype=np.float32)
        elif latent is None:
            z_covariate = self.get_latent_representation(adata, covariates=True)
        else:
            z_covariate = self._label_means(adata, len(z))
        shape = (len(z), self.module.covariate_latent.shape[1])
        if z_covariate.shape != shape:
            msg = f"covariate_latent must be {shape[0]} x {shape[1]}, found {z_covariate.shape}."
            raise ValueError(msg)
        if batch is not None:
            labels = self._covariates.get(self._setup_args["batch_key"], pd.Index([]))
            if batch not in labels:
                msg = f"Unknown batch {batch!r}: the model has {listing(labels)}."
                raise KeyError(msg)
            mean = self.module.label_mixtures[0].means[labels.get_loc(batch)]
            z_covariate[:, : len(mean)] = mean.detach().cpu().numpy()
        return z, z_covariate

    def _label_means(self, adata: AnnData | MuData | None, n: int) -> np.ndarray:
        """Means of the labels of new cells, or of all labels if the model does not know theirs."""
        codes = np.full((n, len(self._covariates)), -1) if adata is None else self._label_codes(adata)
        parts = [np.zeros((n, 0), dtype=np.float32)]
        for i, mixture in enumerate(self.module.label_mixtures):
            means = mixture.means.detach().cpu().numpy()
            parts.append(np.vstack([means, means.mean(0)])[codes[:, i]])  # -1: the last row
        return np.hstack(parts)
