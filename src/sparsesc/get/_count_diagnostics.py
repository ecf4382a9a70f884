from __future__ import annotations

from typing import TYPE_CHECKING

from sparsesc.door import _keys

from ._study import read_study

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def count_diagnostics(adata: AnnData, table: str = "genes", key: str = "count_diagnostics") -> pd.DataFrame:
    """A table of the distributions of counts that :func:`sparsesc.tl.count_diagnostics` wrote.

    Parameters
    ----------
    adata
        Object with these tables.
    table
        ``"genes"``, ``"families"`` or ``"summary"``.
    key
        Entry of ``uns``.

    Returns
    -------
    A copy of the table.

    Raises
    ------
    KeyError
        If there are no such tables.
    ValueError
        If `table` is none of them.
    """
    return read_study(
        adata, table, key, _keys.COUNT_TABLES, what="distributions of counts", writer="ssc.tl.count_diagnostics"
    )
