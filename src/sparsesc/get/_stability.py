from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from sparsesc._values import check_choice
from sparsesc.door import _keys

from ._table import table as read

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData


def stability(
    adata: AnnData | MuData,
    feature: str | int | Sequence[str | int] | None = None,
    key: str = "sae",
    *,
    table: Literal["features", "fits"] = "features",
) -> pd.DataFrame:
    """How well features come back when the autoencoder is fitted again.

    Reads what :func:`sparsesc.tl.stability` wrote.

    Parameters
    ----------
    adata
        Object with the table.
    feature
        Rows of one feature or of several, by name or position; ``None``: all.
    key
        Name of the sparse autoencoder.
    table
        ``"features"`` or ``"fits"``: see below.

    Returns
    -------
    A copy of the table, or of some of its rows.

    ``"features"``
        One row: a feature (index). `stability`: mean cosine with the matched feature of each refit;
        `stability_random`: the same for random directions.
    ``"fits"``
        One row: a fit, the stored one first. `seed`: seed of the fit; -1 for the stored one; `n_alive`: features that
        are active in some cell; `fvu`: fraction of variance unexplained, held-out cells; `l0`: active features per
        cell.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, it was not fitted again (names the function that does), or there
        is no such feature.
    ValueError
        If `table` is none of these names, or features are given for a table without them.

    See Also
    --------
    sparsesc.pl.stability : The same as a picture.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.stability(adata, n_fits=1)
    >>> mean = ssc.get.stability(adata).mean()
    >>> bool(mean["stability"] > mean["stability_random"])
    True
    """
    check_choice(table, ("features", "fits"), name="table")
    if table == "fits":
        return read(adata, f"{_keys.STABILITY}/fits", feature=feature, key=key)
    read(adata, f"{_keys.STABILITY}/fits", key=key)  # without refits, an error that names the function
    return read(adata, _keys.FEATURES, feature=feature, key=key)[["stability", "stability_random"]]
