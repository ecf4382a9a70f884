"""How deeply each cell was sequenced, as far as the data say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

# Total counts of a cell, as scanpy, scvi-tools, Seurat and their users call them.
_COLUMNS = ("total_counts", "n_counts", "nCount_RNA", "total_umis", "n_umi", "nUMI", "n_umis")
_LAYERS = ("counts", "raw_counts", "spliced")
_SAMPLE = 10_000  # stored values that tell whether a matrix holds counts


def log_depth(adata: AnnData | MuData) -> np.ndarray | None:
    """Logarithm of the total counts of each cell, NaN where there are none; ``None`` where nothing tells.

    A column of ``obs`` with a usual name, else a layer of counts, else ``X`` or ``raw`` where they hold counts in
    memory. Files and dask arrays are not read for it.
    """
    for name in _COLUMNS:
        if name in adata.obs and pd.api.types.is_numeric_dtype(adata.obs[name]):
            column = adata.obs[name]
            if isinstance(column, pd.Series):
                return _log(column.to_numpy(dtype=np.float64, na_value=np.nan))
    for matrix in _matrices(adata):
        if _holds_counts(matrix):
            return _log(np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel())
    return None


def _matrices(adata: AnnData | MuData) -> list[Any]:
    layers = getattr(adata, "layers", None) or {}
    found = [layers[name] for name in _LAYERS if name in layers]
    if not getattr(adata, "isbacked", False):
        found.append(getattr(adata, "X", None))
        raw = getattr(adata, "raw", None)
        found.append(None if raw is None else raw.X)
    return found


def _holds_counts(matrix: Any) -> bool:
    if not (sparse.issparse(matrix) or type(matrix) is np.ndarray) or not np.issubdtype(matrix.dtype, np.number):
        return False
    values = matrix.data if sparse.issparse(matrix) else matrix.ravel()
    if not len(values):
        return False
    some = np.asarray(values[:: max(1, len(values) // _SAMPLE)], dtype=np.float64)
    return bool(np.isfinite(some).all() and (some >= 0).all() and (some == np.floor(some)).all() and some.max() > 1)


def _log(totals: np.ndarray) -> np.ndarray | None:
    usable = np.isfinite(totals) & (totals > 0)
    out = np.full(len(totals), np.nan)
    np.log(totals, out=out, where=usable)
    return out if usable.sum() > 2 and np.ptp(out[usable]) > 0 else None
