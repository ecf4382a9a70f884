"""The object that results go to, and columns of its ``obs``."""

from __future__ import annotations

import warnings
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
