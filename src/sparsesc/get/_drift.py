from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparsesc.door import _keys

from ._tables import rows_of

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData


def drift(
    adata: AnnData | MuData, feature: str | int | Sequence[str | int] | None = None, key: str = "sae"
) -> pd.DataFrame:
    """Features in a query beside the reference, what drifts first: the table that :func:`sparsesc.tl.apply_sae` wrote.

    Parameters
    ----------
    adata
        The query.
    feature
        One feature or several, by name or position; ``None``: all.
    key
        Name of the sparse autoencoder.

    Returns
    -------
    A copy of the rows of ``uns[key]["drift"]``. Figures of the query as a whole are in ``uns[key]["query"]``.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, it was fitted to these cells, or there is no such feature.
    """
    return rows_of(adata, _keys.DRIFT, feature, key)
