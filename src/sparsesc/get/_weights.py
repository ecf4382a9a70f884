from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sparsesc._values import check_choice
from sparsesc.door import _checks as check
from sparsesc.door import _keys

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def weights(
    adata: AnnData | MuData,
    feature: str | int | Sequence[str | int] | None = None,
    key: str = "sae",
    *,
    table: Literal["decoder", "encoder"] = "decoder",
) -> pd.DataFrame:
    """The direction of each feature in the embedding.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder.
    feature
        Rows of one feature or of several, by name or position; ``None``: all.
    key
        Name of the sparse autoencoder.
    table
        ``"decoder"``: what a unit of activation adds to a cell, of length 1. ``"encoder"``: what a cell is multiplied
        by for the activation.

    Returns
    -------
    Features x dimensions, a copy, in the units of the embedding. Dimensions are named as scanpy names columns of
    ``obsm``: ``"X_pca-0"``.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or no such feature.
    ValueError
        If `table` is none of these names.

    See Also
    --------
    sparsesc.get.sae : The whole autoencoder, with biases and thresholds.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> directions = ssc.get.weights(adata, ["sae_0", "sae_1"])
    >>> directions.shape, directions.columns[0]
    ((2, 50), 'X_pca-0')
    """
    check_choice(table, ("decoder", "encoder"), name="table")
    slot = check.get_sae_slot(adata, key)
    stored = slot[_keys.WEIGHTS]
    values = np.array(stored["W_dec"] if table == "decoder" else np.transpose(stored["W_enc"]))
    use_rep = slot[_keys.PARAMS]["use_rep"]
    rows = pd.DataFrame(
        values,
        index=check.get_feature_table(adata, key).index,
        columns=[f"{use_rep}-{i}" for i in range(values.shape[1])],
    )
    return rows if feature is None else rows.loc[check.feature_names(adata, feature, key)]
