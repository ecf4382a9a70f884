"""Cells of an AnnData or MuData, read in batches for a deep generative decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from sparsesc import _logging
from sparsesc._values import listing
from sparsesc.door import _checks as check

from ._module import EXPRESSION, CellBatch, Columns

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


class CellReader:
    """Values and labels of cells, in batches; nothing is written to the object they come from.

    Parameters
    ----------
    adata
        Cells.
    features
        By modality: names of the features that the model has.
    layers
        By modality: layer with their values; ``None``: ``X``.
    likelihoods
        By modality: values must have a probability under it.
    covariates
        By column of ``obs``: labels that the model has.

    Raises
    ------
    KeyError
        If a modality, a layer or a column of ``obs`` is missing.
    ValueError
        If values do not fit their likelihood, or the model knows none of the features.
    """

    def __init__(
        self,
        adata: AnnData | MuData,
        *,
        features: Mapping[str, pd.Index],
        layers: Mapping[str, str | None],
        likelihoods: Mapping[str, str],
        covariates: Mapping[str, pd.Index],
    ) -> None:
        check.check_adata(adata)
        self.names = adata.obs_names
        self._likelihoods = dict(likelihoods)
        self._matrices: dict[str, Any] = {}
        self._columns: dict[str, np.ndarray] = {}
        self.columns: Columns = {}
        for name, known in features.items():
            part = self._part(adata, name)
            if part is None:
                continue
            matrix, names = check.get_expression(part, layer=layers[name], use_raw=False)
            position = names.get_indexer(known)
            measured = position >= 0
            if not measured.any():
                msg = (
                    f"None of the {len(known)} features of the model is in {_where(name)}: the model has "
                    f"{listing(known[:4])}, the cells have {listing(names[:4])}."
                )
                raise ValueError(msg)
            missing = known[~measured]
            if len(missing):
                _logging.warning(
                    f"{len(missing)} of {len(known)} features of the model are not in {_where(name)} "
                    f"({listing(missing)}): cells are placed by the others."
                )
            self._matrices[name], self._columns[name] = matrix, position[measured]
            self.columns[name] = torch.from_numpy(np.flatnonzero(measured)) if len(missing) else None
        if not self._matrices:
            msg = f"None of the modalities of the model is in adata: the model has {listing(features)}."
            raise KeyError(msg)
        self.labels, self.new_labels = self._read_labels(adata, covariates)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, rows: np.ndarray, device: torch.device) -> CellBatch:
        """Some cells, by their positions (ascending)."""
        values = {}
        labels = torch.from_numpy(self.labels[rows]).to(device)
        for name, matrix in self._matrices.items():
            x = check.to_float_matrix(matrix[rows], name=_where(name))[:, self._columns[name]]
            check_values(x, self._likelihoods[name], name=_where(name))
            values[name] = torch.from_numpy(np.ascontiguousarray(x)).to(device)
        return CellBatch(values, labels)

    def batches(self, size: int, device: torch.device) -> Iterator[tuple[np.ndarray, CellBatch]]:
        """All cells in batches: positions, and measured values."""
        for start in range(0, len(self), size):
            rows = np.arange(start, min(start + size, len(self)))
            yield rows, self.read(rows, device)

    def _part(self, adata: Any, name: str) -> AnnData | None:
        if name == EXPRESSION:
            if type(adata).__name__ == "MuData":
                msg = "The model was set up with an AnnData, found a MuData: pass the modality that it belongs to."
                raise TypeError(msg)
            return adata
        if type(adata).__name__ != "MuData":
            msg = "The model was set up with a MuData, found an AnnData. Pass mudata.MuData({'" + name + "': adata})."
            raise TypeError(msg)
        if name not in adata.mod:
            _logging.warning(f"Modality {name!r} of the model is not in adata: cells are placed by the others.")
            return None
        part = adata.mod[name]
        if not part.obs_names.equals(adata.obs_names):
            msg = (
                f"Modality {name!r} does not have the same cells in the same order as the MuData: intersect them first."
            )
            raise ValueError(msg)
        return part

    def _read_labels(
        self, adata: AnnData | MuData, covariates: Mapping[str, pd.Index]
    ) -> tuple[np.ndarray, list[pd.Index]]:
        """Codes, cells x covariates: -1 where missing; labels that the model does not have follow those that it has."""
        codes = np.full((len(self.names), len(covariates)), -1, dtype=np.int64)
        new = []
        for i, (key, known) in enumerate(covariates.items()):
            values = pd.Series(check.get_obs_column(adata, key).to_numpy(dtype=object))
            unseen = pd.Index(values.dropna().unique()).difference(known, sort=False)
            codes[:, i] = known.append(unseen).get_indexer(values)
            new.append(unseen)
        return codes, new


def check_values(values: np.ndarray | sparse.spmatrix, likelihood: str, *, name: str) -> None:
    """Refuse values that have no probability under a likelihood.

    Raises
    ------
    ValueError
        If counts are negative or not whole, or values for ``"bernoulli"`` are negative.
    """
    data: np.ndarray = np.asarray(values.data if sparse.issparse(values) else values)
    if likelihood == "gaussian" or data.size == 0:
        return
    if data.min() < 0 or (likelihood == "nb" and (data % 1).any()):
        what = "whole numbers that are not negative" if likelihood == "nb" else "values that are not negative"
        msg = (
            f"likelihood={likelihood!r} takes {what}; {name} has others (the smallest is {data.min():.4g}, an example "
            f"is {data.ravel()[np.argmax(data.ravel() % 1)]:.4g}). Name the layer with raw counts in setup, or choose "
            "likelihood='gaussian'."
        )
        raise ValueError(msg)


def _where(name: str) -> str:
    return "adata" if name == EXPRESSION else f"mdata[{name!r}]"
