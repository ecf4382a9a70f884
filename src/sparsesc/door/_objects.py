"""The object that results go to, and columns of its ``obs``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparsesc._values import listing

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData


def check_adata(adata: Any) -> None:
    """Refuse what is neither AnnData nor MuData."""
    from anndata import AnnData

    if not isinstance(adata, AnnData) and not is_mudata(adata):
        kind = type(adata)
        msg = f"Expected an AnnData (or MuData) as first argument, found {kind.__module__}.{kind.__name__}."
        raise TypeError(msg)


def is_mudata(adata: Any) -> bool:
    """Whether the object is a MuData, without importing mudata."""
    return type(adata).__name__ == "MuData"


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
        if is_mudata(adata):
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


def check_storable(key: Any) -> None:
    """Refuse a name that no slot can have."""
    if not isinstance(key, str) or not key or "/" in key:
        msg = f"key_added must be a non-empty string without '/', found {key!r}."
        raise ValueError(msg)


def refuse_taken(adata: AnnData | MuData, key: str, writer: str, slots: Mapping[str, Sequence[str]]) -> None:
    """Refuse to overwrite ``uns[key]`` and other slots, by attribute, which `writer` did not write."""
    places = {"uns": [key]} | dict(slots)
    taken = [f"{where}[{slot!r}]" for where, names in places.items() for slot in names if slot in getattr(adata, where)]
    if taken:
        msg = (
            f"key_added={key!r} would overwrite {' and '.join(taken)}, which {writer} did not write. "
            "Choose another key_added, or delete that slot."
        )
        raise ValueError(msg)


def get_obs_column(adata: AnnData | MuData, key: str) -> pd.Series:
    """One column of ``obs``.

    Raises
    ------
    KeyError
        If there is none of that name (lists what there is).
    """
    return _column(adata.obs, key, "obs")


def get_var_column(adata: AnnData, key: str) -> pd.Series:
    """One column of ``var``.

    Raises
    ------
    KeyError
        If there is none of that name (lists what there is).
    """
    return _column(adata.var, key, "var")


def _column(table: pd.DataFrame, key: str, holder: str) -> pd.Series:
    if key not in table.columns:
        msg = f"Did not find adata.{holder}[{key!r}]. Available: {listing(table.columns)}."
        raise KeyError(msg)
    return table[key]
