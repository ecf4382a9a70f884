from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from sparsesc._values import check_choice
from sparsesc.door import _keys

from ._tables import rows_of

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

_TABLES = {"neighbors": _keys.SIMILARITY, "same_label": _keys.SAME_LABEL}


def similarity(
    adata: AnnData | MuData,
    feature: str | int | Sequence[str | int] | None = None,
    key: str = "sae",
    *,
    table: Literal["neighbors", "same_label"] = "neighbors",
) -> pd.DataFrame:
    """The most similar features of features: the tables that :func:`sparsesc.tl.feature_similarity` wrote.

    Parameters
    ----------
    adata
        Object with that table.
    feature
        One feature or several, by name or position; ``None``: all.
    key
        Name of the sparse autoencoder.
    table
        ``"neighbors"``: the most similar features of each; ``"same_label"``: pairs that share a label (a feature may
        stand on either side).

    Returns
    -------
    A copy of the rows of ``uns[key]["similarity"]`` or ``["same_label"]``.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, no such table, or no such feature.
    ValueError
        If `table` is none of these names.
    """
    check_choice(table, _TABLES, name="table")
    columns = ("feature", "neighbor") if table == "same_label" else ("feature",)
    return rows_of(adata, _TABLES[table], feature, key, columns=columns)
