"""The one place that writes results into the slots of an AnnData."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc.stats.features._on import columnwise_r, on_cells, on_thresholds

from . import _keys
from ._keys import SaeKeys, sae_keys
from ._objects import check_storable, refuse_taken, writable

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc.nn import SparseAutoencoder

WRITTEN_BY = "function"
"""Entry of ``uns[key]["params"]`` with the name of the function that wrote the slots."""


def record(
    adata: AnnData | MuData,
    key: str,
    function: str,
    tables: Mapping[str, Any],
    asked: Mapping[str, Any],
    *,
    copy: bool = False,
    fresh: bool = False,
    **attributes: Mapping[str, Any],
) -> AnnData | MuData | None:
    """Write the results of a function, all together, and return what the function returns.

    Parameters
    ----------
    adata
        Where results go, or what is copied.
    key
        Entry of ``uns``.
    function
        Name of the function; its options go to ``uns[key]["params"][function]``.
    tables
        Entries of ``uns[key]`` by name. ``None`` removes the one of an earlier call.
    asked
        Options. Those that are ``None`` are not stored, since no file can hold them.
    copy
        Whether to write to a copy, and return it.
    fresh
        Start a new entry ``uns[key]``, whose ``params`` are those of this function alone.
    attributes
        Entries of ``obsm``, ``varm``, ``layers``, ``obs`` or ``var``, by name; ``None`` removes one.

    Returns
    -------
    The copy, or ``None``.
    """
    adata = writable(adata, copy=copy)
    options = {name: _storable(value) for name, value in asked.items() if value is not None}
    if fresh:
        adata.uns[key] = {_keys.PARAMS: {WRITTEN_BY: function} | options}
    else:
        adata.uns[key][_keys.PARAMS] = dict(adata.uns[key][_keys.PARAMS]) | {function: options}
    for holder, entries in [(adata.uns[key], tables), *((getattr(adata, a), e) for a, e in attributes.items())]:
        for name, value in entries.items():
            if value is not None:
                holder[name] = value
            elif name in holder:
                del holder[name]
    return adata if copy else None


def _storable(value: Any) -> Any:
    """An option as h5ad and zarr can hold it: lists become arrays, numpy scalars become Python's."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return np.array(value, dtype=object if any(isinstance(v, str) for v in value) or not value else None)
    return value


def check_slots_free(adata: AnnData, key: str, function: str, slots: Mapping[str, Sequence[str]]) -> None:
    """Refuse a name that cannot be stored, or whose slots hold what `function` did not write.

    Parameters
    ----------
    adata
        Where the slots are.
    key
        Entry of ``uns`` that goes with the slots.
    function
        Its name, with the module: ``"ssc.pp.thin_counts"``.
    slots
        Names of slots by attribute (``"obs"``, ``"obsm"``, ...).

    Raises
    ------
    ValueError
        If the name cannot be stored, or a slot is taken.
    """
    check_storable(key)
    entry = adata.uns.get(key)
    params = entry.get(_keys.PARAMS) if isinstance(entry, Mapping) else None
    if not (isinstance(params, Mapping) and params.get(WRITTEN_BY) == function):
        refuse_taken(adata, key, function, slots)


def feature_table(
    codes: sparse.csr_matrix,
    names: list[str],
    *,
    on_threshold: np.ndarray | None = None,
    depth: np.ndarray | None = None,
) -> pd.DataFrame:
    """What every feature does in these cells, one row per feature: all that ``tables.toml`` lists under `features`.

    ``mean_active`` is the mean over the cells in which the feature is active (0 for dead features). `on_threshold` are
    those of the cells of the fit, ``None`` when these are the cells of the fit. `depth`, the logarithm of the total
    counts of each cell, gives ``depth_r``, which is NaN without.
    """
    n_features = codes.shape[1]
    n_cells = np.bincount(codes.indices, minlength=n_features)
    total = np.bincount(codes.indices, weights=codes.data, minlength=n_features)
    largest = np.zeros(n_features, np.float32)
    np.maximum.at(largest, codes.indices, codes.data)
    threshold = on_thresholds(codes) if on_threshold is None else np.asarray(on_threshold, dtype=np.float64)
    on = on_cells(codes, threshold)
    return pd.DataFrame(
        {
            "density": n_cells / max(codes.shape[0], 1),
            "mean_active": np.divide(total, n_cells, out=np.zeros(n_features), where=n_cells > 0),
            "max": largest.astype(np.float64),
            "n_cells": n_cells,
            "dead": n_cells == 0,
            "on_threshold": threshold,
            "n_on": np.bincount(on.indices, minlength=n_features),
            "depth_r": np.full(n_features, np.nan) if depth is None else columnwise_r(codes, depth),
        },
        index=pd.Index(names, name="feature"),
    )


def record_sae(
    adata: AnnData | MuData,
    slots: SaeKeys,
    codes: sparse.csr_matrix,
    entry: dict[str, Any],
    *,
    copy: bool,
    joint: np.ndarray | None = None,
    obs: Mapping[str, np.ndarray] | None = None,
) -> AnnData | MuData | None:
    """Write an autoencoder, all together, in place of an earlier one under its key; return what the function returns.

    `joint` are several embeddings side by side, and `obs` are columns of ``obs``, for autoencoders that have them.
    """
    adata = writable(adata, copy=copy)
    if hasattr(adata, "varm") and slots.genes in adata.varm:
        del adata.varm[slots.genes]
    if _keys.QUERY in adata.uns.get(slots.key, {}):  # codes of a query, which came with columns
        table: Any = adata.obs
        adata.obs = table.drop(columns=[slots.residual, slots.residual_pval], errors="ignore")
    if slots.joint in adata.obsm and _keys.BLOCKS in adata.uns.get(slots.key, {}).get(_keys.PARAMS, {}):
        del adata.obsm[slots.joint]
    adata.uns[slots.key] = entry
    adata.obsm[slots.codes] = codes
    if joint is not None:
        adata.obsm[slots.joint] = joint
    for name, values in (obs or {}).items():
        adata.obs[name] = values
    return adata if copy else None


def uns_entry(
    key: str,
    codes: sparse.csr_matrix,
    sae: SparseAutoencoder,
    params: dict[str, Any],
    metrics: dict[str, float],
    *,
    on_threshold: np.ndarray | None = None,
    depth: np.ndarray | None = None,
) -> dict[str, Any]:
    """The ``uns`` entry that every stored autoencoder has; for the last two see :func:`feature_table`."""
    names = sae_keys(key).feature_names(sae.n_features)
    params = {name: value for name, value in params.items() if value is not None}
    return {
        _keys.PARAMS: params | {"version": version("sparsesc"), "schema_version": _keys.SCHEMA_VERSION},
        _keys.WEIGHTS: sae.weights,
        _keys.METRICS: metrics,
        _keys.FEATURES: feature_table(codes, names, on_threshold=on_threshold, depth=depth),
    }
