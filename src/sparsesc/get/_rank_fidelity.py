from __future__ import annotations

from typing import TYPE_CHECKING

from sparsesc.door import _keys

from ._study import read_study

if TYPE_CHECKING:
    import pandas as pd
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
    return read_study(
        adata, table, key, _keys.RANK_FIDELITY_TABLES, what="a study of ranks", writer="ssc.tl.rank_fidelity"
    )
