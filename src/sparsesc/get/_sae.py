from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np

from sparsesc.door import _keys
from sparsesc.door._checks import get_sae_slot

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc.nn import SparseAutoencoder


def sae(adata: AnnData | MuData, key: str = "sae") -> SparseAutoencoder:
    """The fitted model itself, to encode and decode cells or to save it.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder; a file holds all that is needed.
    key
        Name of the sparse autoencoder.

    Returns
    -------
    A :class:`~sparsesc.nn.SparseAutoencoder` with copies of the weights in ``uns[key]["weights"]``, in the units of
    the embedding. Its ``metadata`` is ``uns[key]["params"]``, with ``uns[key]["reference"]`` where there is one, so
    that a saved folder also holds what is known of the cells of the fit.

    Raises
    ------
    KeyError
        If no sparse autoencoder is stored under `key`, or its weights are not complete.

    See Also
    --------
    sparsesc.get.weights : The directions of features as a table.
    sparsesc.tl.apply_sae : Apply the model to other cells.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> model = ssc.get.sae(adata)
    >>> codes = model.encode(adata.obsm["X_pca"])
    >>> codes.shape == (adata.n_obs, model.n_features)
    True
    """
    from sparsesc.nn._sae import WEIGHT_NAMES, SparseAutoencoder

    slot = get_sae_slot(adata, key)
    params, weights = slot[_keys.PARAMS], slot[_keys.WEIGHTS]
    missing = [name for name in WEIGHT_NAMES if name not in weights]
    if missing:
        msg = f"adata.uns[{key!r}]['{_keys.WEIGHTS}'] lacks {', '.join(missing)}. Run ssc.tl.fit_sae again."
        raise KeyError(msg)
    architecture = str(params["architecture"])
    metadata = {name: _plain(value) for name, value in params.items()}
    if _keys.REFERENCE in slot:
        metadata[_keys.REFERENCE] = {name: _plain(value) for name, value in slot[_keys.REFERENCE].items()}
    return SparseAutoencoder(
        **{name: np.array(weights[name]) for name in WEIGHT_NAMES},
        k=int(params["k"]) if architecture == "topk" else None,
        architecture=architecture,
        metadata=metadata,
    )


def _plain(value: object) -> object:
    # A file gives numbers back as numpy scalars.
    return value.item() if isinstance(value, np.generic) else deepcopy(value)
