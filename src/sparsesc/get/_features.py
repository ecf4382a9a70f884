from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from sparsesc.door._checks import get_codes, get_feature_table

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def features(adata: AnnData | MuData, key: str = "sae") -> AnnData:
    """Features in place of genes: an AnnData of cells x features, for everything that works on ``X``.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder; stays as it is.
    key
        Name of the sparse autoencoder.

    Returns
    -------
    A new AnnData that shares no memory with `adata`:

    - ``X``: the codes ``obsm["X_{key}"]``, CSR float32;
    - ``obs``, ``obsm``, ``obsp``: of the same cells;
    - ``var``: the feature table ``uns[key]["features"]``;
    - ``uns``: a deep copy.

    Raises
    ------
    KeyError
        If no sparse autoencoder is stored under `key`, or its codes are gone.

    See Also
    --------
    sparsesc.get.mudata : Cells and their features in one MuData.
    sparsesc.get.table : The tables about features.

    Notes
    -----
    Embeddings and graphs come from the parent, and scanpy prefers ``obsm["X_pca"]`` to ``X``: say
    ``sc.pp.neighbors(result, use_rep="X")`` for neighbors by features. Codes are not log-normalized counts, so do
    not normalize them again. Fold changes of :func:`scanpy.tl.rank_genes_groups` have no meaning on them; its ranks
    (``method="wilcoxon"``) do. To test features against labels use :func:`sparsesc.tl.feature_association`.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> features = ssc.get.features(adata)
    >>> sc.pp.neighbors(features, use_rep="X")
    >>> bool(features.n_obs == adata.n_obs), features.var_names[0]
    (True, 'sae_0')
    """
    from anndata import AnnData

    # A MuData keeps in obsm which cell is in which modality; these masks mean nothing outside of it.
    masks = set(getattr(adata, "mod", ()))
    return AnnData(
        X=get_codes(adata, key).copy(),
        obs=adata.obs.copy(),
        var=get_feature_table(adata, key),
        obsm={name: value.copy() for name, value in adata.obsm.items() if name not in masks},
        obsp={name: value.copy() for name, value in adata.obsp.items() if name not in masks},
        uns={name: deepcopy(value) for name, value in adata.uns.items()},
    )
