"""Between the slots of an AnnData and the objects that work on arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from . import _keys
from ._keys import SaeKeys, sae_keys

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc.nn import SparseAutoencoder


def feature_table(codes: sparse.csr_matrix, names: list[str]) -> pd.DataFrame:
    """What every feature does in these cells: `density`, `mean_active`, `max`, `n_cells`, `dead`.

    ``mean_active`` is the mean over the cells in which the feature is active (0 for dead features).
    """
    n_features = codes.shape[1]
    n_cells = np.bincount(codes.indices, minlength=n_features)
    total = np.bincount(codes.indices, weights=codes.data, minlength=n_features)
    largest = np.zeros(n_features, np.float32)
    np.maximum.at(largest, codes.indices, codes.data)
    return pd.DataFrame(
        {
            "density": n_cells / max(codes.shape[0], 1),
            "mean_active": np.divide(total, n_cells, out=np.zeros(n_features), where=n_cells > 0),
            "max": largest.astype(np.float64),
            "n_cells": n_cells,
            "dead": n_cells == 0,
        },
        index=pd.Index(names, name="feature"),
    )


def write_sae(adata: AnnData | MuData, slots: SaeKeys, codes: sparse.csr_matrix, entry: dict[str, Any]) -> None:
    """Store codes and ``uns`` entry together, and drop what an earlier fit under this key left behind."""
    if hasattr(adata, "varm") and slots.genes in adata.varm:
        del adata.varm[slots.genes]
    if _keys.QUERY in adata.uns.get(slots.key, {}):  # codes of a query, which came with columns
        obs: Any = adata.obs
        adata.obs = obs.drop(columns=[slots.residual, slots.residual_pval], errors="ignore")
    if slots.joint in adata.obsm and _keys.BLOCKS in adata.uns.get(slots.key, {}).get(_keys.PARAMS, {}):
        del adata.obsm[slots.joint]
    adata.uns[slots.key] = entry
    adata.obsm[slots.codes] = codes


def uns_entry(
    key: str, codes: sparse.csr_matrix, sae: SparseAutoencoder, params: dict[str, Any], metrics: dict[str, float]
) -> dict[str, Any]:
    """The ``uns`` entry that every stored autoencoder has."""
    from sparsesc import __version__

    names = sae_keys(key).feature_names(sae.n_features)
    params = {name: value for name, value in params.items() if value is not None}
    return {
        _keys.PARAMS: params | {"version": __version__, "schema_version": _keys.SCHEMA_VERSION},
        _keys.WEIGHTS: sae.weights,
        _keys.METRICS: metrics,
        _keys.FEATURES: feature_table(codes, names),
    }
