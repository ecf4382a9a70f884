from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pandas as pd

from sparsesc._values import check_choice, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def suppression(
    adata: AnnData | MuData, table: Literal["features", "transfer", "scib"] = "features", key: str = "sae"
) -> pd.DataFrame:
    """A table of what :func:`sparsesc.tl.suppress_features` did, and whether it helped.

    Parameters
    ----------
    adata
        Object with these tables.
    table
        ``"features"``: what each feature knows of batch and biology, and whether it was suppressed; ``"transfer"``:
        labels handed over between batches before, after and for all controls; ``"scib"``: scores of scib-metrics.
    key
        Name of the sparse autoencoder.

    Returns
    -------
    A copy of the table.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, nothing was suppressed, or there is no such table without
        batches, labels, or `scib`.
    ValueError
        If `table` is none of these names.
    """
    check_choice(table, _keys.SUPPRESSION_TABLES, name="table")
    slot = check.get_sae_slot(adata, key)
    if _keys.SUPPRESSION not in slot:
        msg = f"Did not find adata.uns[{key!r}][{_keys.SUPPRESSION!r}]. Run ssc.tl.suppress_features first."
        raise KeyError(msg)
    tables = slot[_keys.SUPPRESSION]
    if table not in tables:
        needs = "scib=True" if table == "scib" else "batch_key and bio_keys"
        msg = (
            f"The suppression has no table {table!r} (only {listing(n for n in tables if n != _keys.PARAMS)}). "
            f"Run ssc.tl.suppress_features with {needs}."
        )
        raise KeyError(msg)
    return pd.DataFrame(tables[table]).copy()
