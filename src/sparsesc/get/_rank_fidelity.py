from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from sparsesc import _keys
from sparsesc import _validation as check

if TYPE_CHECKING:
    from anndata import AnnData


def rank_fidelity(adata: AnnData, table: str = "summary", key: str = "rank_fidelity") -> pd.DataFrame:
    """A table of the study of rank encodings that :func:`sparsesc.tl.rank_fidelity` wrote.

    Parameters
    ----------
    adata
        Object with that study.
    table
        ``"summary"``, ``"pairs"``, ``"outliers"``, ``"neighbors"``, ``"neighbor_groups"``, ``"rules"`` or
        ``"sparsity"``.
    key
        Entry of ``uns`` of the study.

    Returns
    -------
    A copy of the table.

    Raises
    ------
    KeyError
        If there is no such study.
    ValueError
        If there is no such table.
    """
    check.check_adata(adata)
    check.check_choice(table, _keys.RANK_FIDELITY_TABLES, name="table")
    entry = adata.uns.get(key)
    if not isinstance(entry, Mapping) or table not in entry:
        msg = f"Did not find a study of ranks in adata.uns[{key!r}]. Run ssc.tl.rank_fidelity first."
        raise KeyError(msg)
    return pd.DataFrame(entry[table]).copy()
