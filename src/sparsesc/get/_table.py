from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparsesc.door import _checks as check
from sparsesc.door import _keys

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

_OTHER_OWNERS = {_keys.SAME_LABEL: ["neighbor"]}  # in pairs, a feature may stand on either side


def table(
    adata: AnnData | MuData,
    name: str,
    *,
    feature: str | int | Sequence[str | int] | None = None,
    key: str = "sae",
) -> pd.DataFrame:
    """Any table that this package stored, by its name.

    The functions beside this one read the same tables, one kind each, and explain their columns.

    Parameters
    ----------
    adata
        Object with the table.
    name
        A table of a sparse autoencoder: ``"features"``, ``"genes"``, ``"association"``, ``"steering/doses"``, ... Of
        another result, the kind of result comes first: ``"saliency/genes"``, ``"rank_fidelity/pairs"``, ...
    feature
        Rows of one feature or of several, by name or position; ``None``: all. Units, in tables of units.
    key
        Entry of ``uns``: name of the sparse autoencoder, or of the other result.

    Returns
    -------
    A copy of the table, or of the rows of these features (numbered from 0 where features are not the index).

    Raises
    ------
    KeyError
        If nothing is stored under `key`, the table was not computed (names the function that does), or there is no such
        feature.
    ValueError
        If there is no table of that name (lists those that are stored), or its rows belong to no feature.

    See Also
    --------
    sparsesc.get.features : Cells x features, with the table of features as ``var``.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.get.table(adata, "features", feature=["sae_0", "sae_5"])[["density", "dead"]].shape
    (2, 2)
    """
    rows = check.get_table(adata, key, name, allow_empty=True)
    if feature is None:
        return rows
    owner = "unit" if name.startswith(f"{_keys.SALIENCY_KEY}/") else "feature"
    if owner not in _keys.TABLES[name].columns:
        msg = f"Rows of the table {name!r} belong to no feature: leave feature out."
        raise ValueError(msg)
    if owner == "unit":
        names = check.pick_names(check.get_saliency_slot(adata, key)[_keys.UNITS].index, feature, key, what="unit")
    else:
        names = check.feature_names(adata, feature, key)
    if owner not in rows:  # it is the index
        return rows.loc[names]
    owners = [owner, *_OTHER_OWNERS.get(name, [])]
    return rows[rows[owners].astype(str).isin(names).any(axis=1)].reset_index(drop=True)
