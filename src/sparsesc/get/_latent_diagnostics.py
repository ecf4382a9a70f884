from __future__ import annotations

from typing import TYPE_CHECKING

from sparsesc.door import _keys

from ._study import read_study

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def latent_diagnostics(adata: AnnData, table: str = "dimensions", key: str = "latent_diagnostics") -> pd.DataFrame:
    """A table of what :func:`sparsesc.tl.latent_diagnostics` found of a latent space.

    Parameters
    ----------
    adata
        Object with these tables.
    table
        ``"dimensions"``, ``"elbo"`` or ``"dependence"``.
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
        adata, table, key, _keys.LATENT_TABLES, what="diagnostics of a latent", writer="ssc.tl.latent_diagnostics"
    )
