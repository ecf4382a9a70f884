from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparsesc.door import _keys

from ._tables import rows_of

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData


def locality(
    adata: AnnData | MuData, feature: str | int | Sequence[str | int] | None = None, key: str = "sae"
) -> pd.DataFrame:
    """In which categories features are stronger: the table that :func:`sparsesc.tl.feature_locality` wrote.

    Parameters
    ----------
    adata
        Object with that table.
    feature
        One feature or several, by name or position; ``None``: all.
    key
        Name of the sparse autoencoder.

    Returns
    -------
    A copy of the rows of ``uns[key]["locality"]``.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, no such table, or no such feature.
    """
    return rows_of(adata, _keys.LOCALITY, feature, key)
