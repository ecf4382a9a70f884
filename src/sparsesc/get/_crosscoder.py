from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pandas as pd

from sparsesc._values import check_choice
from sparsesc.door import _checks as check
from sparsesc.door import _keys

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def crosscoder(
    adata: AnnData | MuData,
    key: str = "sae",
    *,
    table: Literal["embeddings", "cross", "counts"] = "embeddings",
) -> pd.DataFrame:
    """What :func:`sparsesc.tl.fit_crosscoder` found of the embeddings, beside its controls.

    Parameters
    ----------
    adata
        Object with a crosscoder.
    key
        Name of the crosscoder.
    table
        ``"embeddings"``: how much of each is explained; ``"cross"``: of each from each other one alone; ``"counts"``:
        features of each kind.

    Returns
    -------
    A copy of the table ``uns[key]["crosscoder"][table]``. Shares and kinds of single features are columns of
    ``uns[key]["features"]``.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or it is no crosscoder.
    ValueError
        If `table` is none of these names.
    """
    check_choice(table, _keys.CROSSCODER_TABLES, name="table")
    slot = check.get_sae_slot(adata, key)
    if _keys.CROSSCODER not in slot:
        msg = (
            f"Did not find adata.uns[{key!r}]['{_keys.CROSSCODER}']: {key!r} is no crosscoder. Run "
            "ssc.tl.fit_crosscoder first."
        )
        raise KeyError(msg)
    return pd.DataFrame(slot[_keys.CROSSCODER][table]).copy()
