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
    """The fitted sparse autoencoder, rebuilt from its stored weights.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder, also fresh from a file.
    key
        Name the autoencoder was fitted under.

    Returns
    -------
    A :class:`~sparsesc.nn.SparseAutoencoder` with copies of the weights in ``uns[key]["weights"]``, in the units of
    the embedding. Its ``metadata`` is ``uns[key]["params"]``, with ``uns[key]["reference"]`` where there is one: what
    is known of the cells of the fit then travels with a saved folder.

    Raises
    ------
    KeyError
        If no sparse autoencoder is stored under `key`, or its weights are not complete.
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
