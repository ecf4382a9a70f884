from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sparsesc.door import _checks as check
from sparsesc.door import _keys

if TYPE_CHECKING:
    from anndata import AnnData


def gene_scores(
    adata: AnnData, feature: str | int | Sequence[str | int] | None = None, key: str = "sae"
) -> pd.DataFrame:
    """The score of every gene in every feature: ranked lists for gene set tests of other packages.

    Parameters
    ----------
    adata
        Cells with features and the scores of :func:`sparsesc.tl.feature_genes`.
    feature
        Rows of one feature or of several, by name or position; ``None``: all.
    key
        Name of the sparse autoencoder.

    Returns
    -------
    Features x genes (``adata.var_names``), float32, a copy of ``varm["{key}_genes"]`` turned on its side: Welch's t or
    Pearson's r of the comparison, or the derivative of a decoder. 0 where nothing was tested: in features with too few
    cells, for genes that do not vary or were not in the matrix. It is what ``decoupler.mt.ulm`` and
    its like take as ``data``; a row, without zeros, is what ``gseapy.prerank`` takes as ``rnk``.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, its gene scores are missing or were not stored, or there is no
        such feature.

    See Also
    --------
    sparsesc.get.genes : The best genes only, with p-values.
    sparsesc.tl.feature_enrichment : Gene sets tested on these scores.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_genes(adata)
    >>> scores = ssc.get.gene_scores(adata)
    >>> scores.shape[1] == adata.n_vars
    True

    The ranked list of one feature:

    >>> ranked = ssc.get.gene_scores(adata, "sae_0").loc["sae_0"].sort_values(ascending=False)
    >>> bool(ranked.iloc[0] >= ranked.iloc[-1])
    True
    """
    table = check.get_feature_table(adata, key)
    slot = _keys.sae_keys(key).genes
    if slot not in adata.varm:
        run = check.get_sae_slot(adata, key)[_keys.PARAMS].get("feature_genes") is not None
        msg = f"Did not find adata.varm[{slot!r}], the gene scores of {key!r}. " + (
            "They were not stored (store='auto' leaves out more than 10^8 of them): run ssc.tl.feature_genes(adata, "
            "store=True)."
            if run
            else f"Run ssc.tl.feature_genes(adata, key={key!r}) first."
        )
        raise KeyError(msg)
    scores = pd.DataFrame(
        np.asarray(adata.varm[slot]).T.copy(), index=table.index.astype(str), columns=adata.var_names.astype(str)
    )
    return scores if feature is None else scores.loc[check.feature_names(adata, feature, key)]
