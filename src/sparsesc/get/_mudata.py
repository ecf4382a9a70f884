from __future__ import annotations

from typing import TYPE_CHECKING

from ._features import features

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def mudata(adata: AnnData | MuData, key: str = "sae", *, modality: str = "rna") -> MuData:
    """Cells and their features as two modalities of a MuData.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder; stays as it is. A MuData keeps its modalities and gains one.
    key
        Name of the sparse autoencoder, and of the new modality.
    modality
        Name of the modality that holds `adata`; not used for a MuData.

    Returns
    -------
    ``{modality: adata, key: ssc.get.features(adata, key)}``, a copy of everything.

    Raises
    ------
    KeyError
        If no sparse autoencoder is stored under `key`, or its codes are gone.
    ValueError
        If a modality of that name exists already.

    See Also
    --------
    sparsesc.get.features : The features alone.

    Notes
    -----
    All of `adata` is copied. For large data :func:`features` alone costs less.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> list(ssc.get.mudata(adata).mod)
    ['rna', 'sae']
    """
    from mudata import MuData

    feats = features(adata, key)
    known = dict(adata.mod) if isinstance(adata, MuData) else {modality: adata}
    if key in known:
        msg = f"A modality named {key!r} exists already. Fit under another key_added, or name the other modality."
        raise ValueError(msg)
    known = {name: mod.to_memory(copy=True) for name, mod in known.items()}
    return MuData({**known, key: feats})
