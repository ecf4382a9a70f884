"""Entries of ``uns``: autoencoders, saliencies, the tables in them, and the names of their features and units."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc._values import listing
from sparsesc.stats.features._on import on_thresholds

from . import _keys
from ._keys import TABLES, SaeKeys, sae_keys, table_path
from ._objects import check_adata, check_storable, refuse_taken

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

_SAE_PARTS = (_keys.PARAMS, _keys.WEIGHTS)
_SALIENCY_PARTS = (_keys.PARAMS, _keys.UNITS, _keys.INPUTS, _keys.PAIRS, _keys.NODE_WEIGHTS)


def is_sae_slot(value: Any) -> bool:
    """Whether an entry of ``uns`` was written by this package's fit."""
    return _has(value, _SAE_PARTS)


def _has(value: Any, parts: Sequence[str]) -> bool:
    return isinstance(value, Mapping) and all(part in value for part in parts)


def get_sae_slot(adata: AnnData | MuData, key: str) -> Mapping[str, Any]:
    """``uns[key]`` of a fitted sparse autoencoder.

    Raises
    ------
    KeyError
        If nothing, or something else, is stored under `key`.
    """
    return _entry(adata, key, _SAE_PARTS, "sparse autoencoder", "Fitted", "ssc.tl.fit_sae")


def get_saliency_slot(adata: AnnData | MuData, key: str) -> Mapping[str, Any]:
    """``uns[key]`` of a saliency.

    Raises
    ------
    KeyError
        If nothing, or something else, is stored under `key`.
    """
    return _entry(adata, key, _SALIENCY_PARTS, "saliency", "Computed", "ssc.tl.saliency")


def _entry(
    adata: AnnData | MuData, key: str, parts: Sequence[str], what: str, made: str, writer: str
) -> Mapping[str, Any]:
    check_adata(adata)
    if not _has(adata.uns.get(key), parts):
        others = [name for name in adata.uns if _has(adata.uns[name], parts)]
        there = f"adata.uns[{key!r}] holds something else" if key in adata.uns else f"did not find adata.uns[{key!r}]"
        msg = f"No {what} under key={key!r}: {there}. {made} here: {listing(others)}. Run {writer} first."
        raise KeyError(msg)
    return adata.uns[key]


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
    return codes if codes.has_sorted_indices else codes.sorted_indices()


def get_feature_table(adata: AnnData | MuData, key: str) -> pd.DataFrame:
    """A copy of ``uns[key]["features"]``, one row per feature."""
    return pd.DataFrame(get_sae_slot(adata, key)[_keys.FEATURES]).copy()


def get_on_thresholds(adata: AnnData | MuData, key: str) -> np.ndarray:
    """Activation above which each feature is on, (F,) float64: as stored, or of these cells where none is stored."""
    table = get_feature_table(adata, key)
    if "on_threshold" in table:
        return table["on_threshold"].to_numpy(dtype=np.float64)
    return on_thresholds(get_codes(adata, key))


def get_table(adata: AnnData | MuData, key: str, name: str, *, allow_empty: bool = False) -> pd.DataFrame:
    """A copy of one of the tables of :data:`sparsesc.door._keys.TABLES`.

    Raises
    ------
    KeyError
        If the table was not computed yet (names the function that does).
    ValueError
        If there is no table of that name, or it is empty and may not be.
    """
    check_adata(adata)
    entry, first = adata.uns.get(key), name.split("/")[0]
    if name not in TABLES:
        msg = f"Unknown table: {name!r}. Stored under {key!r}: {', '.join(_names(entry)) or 'none'}."
        raise ValueError(msg)
    if first not in _keys.STUDIES:
        entry = get_sae_slot(adata, key)
    elif first == _keys.SALIENCY_KEY:
        entry = get_saliency_slot(adata, key)
    stored = _stored(entry, name)
    slot = f"adata.uns[{key!r}]" + "".join(f"[{part!r}]" for part in table_path(name))
    if stored is None:
        here = ", ".join(_names(entry)) or "none"
        msg = f"Did not find {slot} (tables here: {here}). Run ssc.{TABLES[name].writer} first."
        raise KeyError(msg)
    table = pd.DataFrame(stored).copy()
    if table.empty and not allow_empty:
        msg = f"{slot} is empty. Run ssc.{TABLES[name].writer} again."
        raise ValueError(msg)
    return table


def _names(entry: Any) -> list[str]:
    """Names of the tables in an entry of ``uns``; "genes" and the like without the study that they are of."""
    return list(dict.fromkeys(repr("/".join(table_path(name))) for name in TABLES if _stored(entry, name) is not None))


def _stored(entry: Any, name: str) -> Any:
    """The table in an entry of ``uns``, or ``None``."""
    for part in table_path(name):
        entry = entry.get(part) if isinstance(entry, Mapping) else None
    return entry


def check_key_free(adata: AnnData | MuData, key: str) -> SaeKeys:
    """The slots of `key`, when they are free or belong to an earlier fit.

    Raises
    ------
    ValueError
        If a slot is taken by something that is not ours, or the name cannot be stored.
    """
    check_storable(key)
    slots = sae_keys(key)
    if not is_sae_slot(adata.uns.get(key)):
        refuse_taken(adata, key, "sparsesc", {"obsm": [slots.codes]})
    return slots


def feature_names(adata: AnnData | MuData, features: str | int | Sequence[str | int], key: str) -> list[str]:
    """Names of features, given by name or by position, in that order, without repeats.

    Raises
    ------
    KeyError
        If there is none of that name (lists the closest) or at that position.
    TypeError
        If a feature is neither a name nor a position.
    ValueError
        If none is given.
    """
    return pick_names(get_feature_table(adata, key).index, features, key, what="feature")


def pick_names(names: pd.Index, picked: str | int | Sequence[str | int], key: str, *, what: str) -> list[str]:
    """Some of the `names`, given by name or by position; `what` and `key` are for messages.

    Raises
    ------
    KeyError
        If there is none of that name (lists the closest) or at that position.
    TypeError
        If something is neither a name nor a position.
    ValueError
        If none is given.
    """
    names = pd.Index(names.astype(str))
    wanted = [picked] if isinstance(picked, str | int | np.integer) else list(picked)
    if not wanted:
        msg = f"No {what}s given. Name some of {listing(names)}."
        raise ValueError(msg)
    result = []
    for one in wanted:
        if isinstance(one, bool) or not isinstance(one, str | int | np.integer):
            msg = f"Name {what}s by strings or positions, found {type(one).__name__}: {one!r}."
            raise TypeError(msg)
        if isinstance(one, str):
            if one not in names:
                close = difflib.get_close_matches(one, names, n=5)
                hint = f"Closest: {listing(close)}." if close else f"There are {listing(names)}."
                msg = f"Did not find {what} {one!r} of {key!r}. {hint}"
                raise KeyError(msg)
            result.append(one)
        else:
            if not 0 <= one < len(names):
                msg = f"{what.capitalize()} {one} of {key!r} is out of range: there are {len(names)}, counted from 0."
                raise KeyError(msg)
            result.append(str(names[one]))
    return list(dict.fromkeys(result))
