"""Embeddings and expression as matrices of finite numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc._values import listing

from ._objects import check_adata, is_mudata

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def to_float_matrix(values: Any, *, name: str) -> np.ndarray:
    """Anything that ``obsm`` can hold as a dense C-contiguous float32 array (cells x dimensions) of finite numbers.

    Raises
    ------
    TypeError
        If the values are not numbers.
    ValueError
        If the array is not two-dimensional or holds NaN or infinite values.
    """
    if isinstance(values, pd.DataFrame):
        bad = [c for c in values.columns if not pd.api.types.is_numeric_dtype(values[c])]
        if bad:
            msg = f"{name} has columns that are not numeric: {listing(bad)}. Keep only numeric columns."
            raise TypeError(msg)
        values = values.to_numpy(dtype=np.float64)
    elif sparse.issparse(values):
        values = values.toarray()
    elif hasattr(values, "to_memory"):  # a backed sparse dataset
        values = values.to_memory().toarray()
    elif hasattr(values, "compute"):  # dask
        values = values.compute()
        values = values.toarray() if sparse.issparse(values) else values
    values = np.asarray(values)
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        msg = f"{name} must hold numbers, found dtype {values.dtype}."
        raise TypeError(msg)
    if np.iscomplexobj(values):
        msg = f"{name} must hold real numbers, found dtype {values.dtype}."
        raise TypeError(msg)
    if values.ndim != 2:
        msg = f"{name} must be two-dimensional (cells x dimensions), found shape {values.shape}."
        raise ValueError(msg)
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(values, dtype=np.float32)
    check_finite(out, name=name)
    return out


def check_finite(values: np.ndarray, *, name: str) -> None:
    """Refuse NaN and infinite values, saying how many there are and where the first one is."""
    finite = np.isfinite(values)
    if finite.all():
        return
    rows, columns = np.nonzero(~finite)
    n_nan = int(np.isnan(values).sum())
    msg = (
        f"{name} holds {n_nan} NaN and {len(rows) - n_nan} infinite values (float32) in {len(np.unique(rows))} of "
        f"{values.shape[0]} cells; the first is at row {rows[0]}, column {columns[0]}. "
        "Remove these cells or recompute the embedding."
    )
    raise ValueError(msg)


def get_rep(adata: AnnData | MuData, use_rep: str) -> np.ndarray:
    """The embedding ``obsm[use_rep]`` (or ``X`` with ``use_rep="X"``) as dense float32.

    Raises
    ------
    KeyError
        If there is no such embedding (lists what there is).
    """
    check_adata(adata)
    if not isinstance(use_rep, str):
        msg = f"use_rep must be a string, found {type(use_rep).__name__}."
        raise TypeError(msg)
    if use_rep == "X" and "X" not in adata.obsm:
        if getattr(adata, "X", None) is None:
            msg = "use_rep='X' means adata.X, but there is none here. Name an entry of obsm instead."
            raise KeyError(msg)
        return to_float_matrix(adata.X, name="adata.X")
    if use_rep not in adata.obsm:
        msg = (
            f"Did not find adata.obsm[{use_rep!r}]. Available: {listing(adata.obsm.keys())}. "
            "Compute an embedding first (for example sc.pp.pca, or scVI's get_latent_representation) and name it by "
            "use_rep; use_rep='X' takes the expression matrix itself."
        )
        raise KeyError(msg)
    return to_float_matrix(adata.obsm[use_rep], name=f"adata.obsm[{use_rep!r}]")


def layer_listing(adata: AnnData) -> str:
    """Names of the layers, for messages."""
    return listing(name for name in adata.layers.keys() if name is not None)  # anndata lists X among them, as None


def get_expression(adata: AnnData, *, layer: str | None = None, use_raw: bool | None = None) -> tuple[Any, pd.Index]:
    """The expression matrix (cells x genes: CSR, CSC, dense, backed or dask, as it is stored) and its gene names.

    With ``use_raw=None`` the matrix is ``.raw`` when there is one and no `layer` is named, as in scanpy.

    Raises
    ------
    KeyError
        If the layer does not exist.
    ValueError
        If ``.raw`` or ``.X`` is missing, both `layer` and `use_raw` are given, or gene names repeat.
    """
    check_adata(adata)
    if is_mudata(adata):
        msg = f"Genes need one modality: pass mdata['rna'] (found modalities {listing(getattr(adata, 'mod', []))})."
        raise TypeError(msg)
    if use_raw and layer is not None:
        msg = f"use_raw=True and layer={layer!r} exclude each other: name one of them."
        raise ValueError(msg)
    if use_raw and adata.raw is None:
        msg = "use_raw=True, but adata.raw is None. Set adata.raw, or use X or a layer."
        raise ValueError(msg)
    if layer is not None and layer not in adata.layers:
        msg = f"Did not find adata.layers[{layer!r}]. Available: {layer_listing(adata)}."
        raise KeyError(msg)
    if use_raw is None:
        use_raw = layer is None and adata.raw is not None
    source = adata.raw if use_raw else adata
    matrix = source.X if layer is None else adata.layers[layer]
    if matrix is None:
        msg = "adata.X is None: there is no expression matrix to read. Name a layer, or set adata.X."
        raise ValueError(msg)
    names = source.var_names
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()
        msg = (
            f"Gene names repeat ({len(repeated)} of them): {listing(repeated)}. "
            "Run adata.var_names_make_unique() first (before setting adata.raw)."
        )
        raise ValueError(msg)
    return matrix, names
