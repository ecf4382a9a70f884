"""The door: bad input becomes an error here, before any work is done.

A message says what is wrong, what was found and what to do.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc._values import listing

from . import _keys
from ._keys import SaeKeys, sae_keys

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


_TABLE_WRITERS = {
    _keys.HISTORY: "ssc.tl.fit_sae",
    _keys.DRIFT: "ssc.tl.apply_sae",
    _keys.ASSOCIATION: "ssc.tl.feature_association",
    _keys.ASSOCIATION_NUMERIC: "ssc.tl.feature_association",
    _keys.LABELS: "ssc.tl.feature_association",
    _keys.GENES: "ssc.tl.feature_genes",
    _keys.ENRICHMENT: "ssc.tl.feature_enrichment",
    _keys.DIFFERENTIAL: "ssc.tl.differential_features",
    _keys.SIMILARITY: "ssc.tl.feature_similarity",
    _keys.SAME_LABEL: "ssc.tl.feature_similarity",
    _keys.LOCALITY: "ssc.tl.feature_locality",
    _keys.ABSORPTION: "ssc.tl.feature_absorption",
    _keys.ANNOTATION: "ssc.tl.annotate_features",
}


def check_adata(adata: Any) -> None:
    """Refuse what is neither AnnData nor MuData."""
    from anndata import AnnData

    if isinstance(adata, AnnData):
        return
    if type(adata).__name__ == "MuData":
        return
    msg = f"Expected an AnnData (or MuData) as first argument, found {type(adata).__module__}.{type(adata).__name__}."
    raise TypeError(msg)


def writable(adata: AnnData | MuData, *, copy: bool) -> AnnData | MuData:
    """The object that results go to: a copy, or the object itself; a view becomes an actual copy with a warning.

    Raises
    ------
    TypeError
        If `adata` is neither AnnData nor MuData.
    """
    check_adata(adata)
    if copy:
        return adata.copy()
    if adata.is_view:
        if type(adata).__name__ == "MuData":
            msg = "This MuData is a view. Results cannot be written to it: pass mdata[...].copy(), or copy=True."
            raise ValueError(msg)
        from anndata import ImplicitModificationWarning

        warnings.warn(
            "Received a view of an AnnData. Making a copy: the parent object stays as it is.",
            ImplicitModificationWarning,
            stacklevel=4,
        )
        adata._init_as_actual(adata.copy())
    return adata


def to_float_matrix(values: Any, *, name: str) -> np.ndarray:
    """A dense C-contiguous float32 array (cells x dimensions) of finite numbers from anything ``obsm`` can hold.

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
            msg = "use_rep='X' asks for .X, but there is none here. Name an entry of obsm instead."
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


def get_sae_slot(adata: AnnData | MuData, key: str) -> Mapping[str, Any]:
    """``uns[key]`` of a fitted sparse autoencoder.

    Raises
    ------
    KeyError
        If nothing, or something else, is stored under `key`.
    """
    check_adata(adata)
    if not is_sae_slot(adata.uns.get(key)):
        found = [k for k in adata.uns if is_sae_slot(adata.uns[k])]
        what = f"adata.uns[{key!r}] holds something else" if key in adata.uns else f"did not find adata.uns[{key!r}]"
        msg = (
            f"No sparse autoencoder under key={key!r}: {what}. Fitted here: {listing(found)}. Run ssc.tl.fit_sae first."
        )
        raise KeyError(msg)
    return adata.uns[key]


def is_sae_slot(value: Any) -> bool:
    """Whether an entry of ``uns`` was written by this package's fit."""
    return isinstance(value, Mapping) and _keys.WEIGHTS in value and _keys.PARAMS in value


def get_codes(adata: AnnData | MuData, key: str) -> sparse.csr_matrix:
    """The codes ``obsm["X_{key}"]``, cells x features, CSR float32 with sorted indices.

    Raises
    ------
    KeyError
        If no sparse autoencoder is stored under `key`, or its codes are gone.
    """
    get_sae_slot(adata, key)
    slot = sae_keys(key).codes
    if slot not in adata.obsm:
        msg = f"Did not find adata.obsm[{slot!r}], the codes of {key!r}. Run ssc.tl.apply_sae(adata, adata, ...) first."
        raise KeyError(msg)
    codes = sparse.csr_matrix(adata.obsm[slot], dtype=np.float32)
    if not codes.has_sorted_indices:
        codes = codes.sorted_indices()
    return codes


def get_feature_table(adata: AnnData | MuData, key: str) -> pd.DataFrame:
    """A copy of ``uns[key]["features"]``, one row a feature."""
    return pd.DataFrame(get_sae_slot(adata, key)[_keys.FEATURES]).copy()


def check_key_free(adata: AnnData | MuData, key: str) -> SaeKeys:
    """The slots of `key`, when they are free or belong to an earlier fit.

    Raises
    ------
    ValueError
        If a slot is taken by something that is not ours, or the name cannot be stored.
    """
    if not isinstance(key, str) or not key or "/" in key:
        msg = f"key_added must be a non-empty string without '/', found {key!r}."
        raise ValueError(msg)
    slots = sae_keys(key)
    ours = is_sae_slot(adata.uns.get(key))
    taken = []
    if not ours:
        taken += [f"uns[{key!r}]"] if key in adata.uns else []
        taken += [f"obsm[{slots.codes!r}]"] if slots.codes in adata.obsm else []
    if taken:
        msg = (
            f"key_added={key!r} would overwrite {' and '.join(taken)}, which sparsesc did not write. "
            "Choose another key_added, or delete that slot."
        )
        raise ValueError(msg)
    return slots


def get_obs_column(adata: AnnData | MuData, key: str) -> pd.Series:
    """One column of ``obs``.

    Raises
    ------
    KeyError
        If there is none of that name (lists what there is).
    """
    if key not in adata.obs.columns:
        msg = f"Did not find adata.obs[{key!r}]. Available: {listing(adata.obs.columns)}."
        raise KeyError(msg)
    return adata.obs[key]


def get_expression(adata: AnnData, *, layer: str | None = None, use_raw: bool | None = None) -> tuple[Any, pd.Index]:
    """The expression matrix (cells x genes: CSR, CSC, dense, backed or dask, as it is stored) and its gene names.

    With ``use_raw=None`` the matrix is ``.raw`` when there is one and no `layer` was asked for, as in scanpy.

    Raises
    ------
    KeyError
        If the layer does not exist.
    ValueError
        If ``.raw`` or ``.X`` is missing, both `layer` and `use_raw` were asked for, or gene names repeat.
    """
    check_adata(adata)
    if type(adata).__name__ == "MuData":
        msg = f"Genes need one modality: pass mdata['rna'] (found modalities {listing(getattr(adata, 'mod', []))})."
        raise TypeError(msg)
    if use_raw and layer is not None:
        msg = f"use_raw=True and layer={layer!r} exclude each other: name one of them."
        raise ValueError(msg)
    if use_raw and adata.raw is None:
        msg = "use_raw=True, but adata.raw is None. Set adata.raw, or use X or a layer."
        raise ValueError(msg)
    if layer is not None and layer not in adata.layers:
        layers = [name for name in adata.layers.keys() if name is not None]  # anndata lists X among them, as None
        msg = f"Did not find adata.layers[{layer!r}]. Available: {listing(layers)}."
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


def get_table(adata: AnnData | MuData, key: str, name: str) -> pd.DataFrame:
    """A copy of the table ``uns[key][name]``, with `name` one of the tables of :mod:`sparsesc.door._keys`.

    Raises
    ------
    KeyError
        If the table was not computed yet (names the function that does).
    ValueError
        If it is empty.
    """
    slot = get_sae_slot(adata, key)
    writer = _TABLE_WRITERS[name]
    if name not in slot:
        found = [n for n in _TABLE_WRITERS if n in slot]
        msg = f"Did not find adata.uns[{key!r}][{name!r}] (tables here: {listing(found)}). Run {writer} first."
        raise KeyError(msg)
    table = pd.DataFrame(slot[name]).copy()
    if table.empty:
        msg = f"adata.uns[{key!r}][{name!r}] is empty. Run {writer} again."
        raise ValueError(msg)
    return table


def feature_names(adata: AnnData | MuData, features: str | int | Sequence[str | int], key: str) -> list[str]:
    """Names of the features asked for (by name or by position), in that order, without repeats.

    Raises
    ------
    KeyError
        If there is none of that name (lists the closest) or at that position.
    TypeError
        If a feature is neither a name nor a position.
    ValueError
        If none is asked for.
    """
    names = pd.Index(get_feature_table(adata, key).index.astype(str))
    asked = [features] if isinstance(features, str | int | np.integer) else list(features)
    if not asked:
        msg = f"No features asked for. Name some of {listing(names)}."
        raise ValueError(msg)
    found = []
    for feature in asked:
        if isinstance(feature, str):
            if feature not in names:
                close = difflib.get_close_matches(feature, names, n=5)
                hint = f"Closest: {listing(close)}." if close else f"There are {listing(names)}."
                msg = f"Did not find feature {feature!r} of {key!r}. {hint}"
                raise KeyError(msg)
            found.append(feature)
        elif isinstance(feature, int | np.integer) and not isinstance(feature, bool):
            if not 0 <= feature < len(names):
                msg = f"Feature {feature} of {key!r} is out of range: there are {len(names)}, counted from 0."
                raise KeyError(msg)
            found.append(names[feature])
        else:
            msg = f"Name features by strings or positions, found {type(feature).__name__}: {feature!r}."
            raise TypeError(msg)
    return list(dict.fromkeys(found))
