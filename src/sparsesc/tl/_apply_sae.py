"""Encode cells with features that were fitted elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsesc._logging import info, warning
from sparsesc._slots import uns_entry, write_sae
from sparsesc._validation import check_adata, check_key_free, get_rep, writable

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc.nn import SparseAutoencoder

_POOR = 0.0  # explained variance below which the features are no better than the mean cell


def apply_sae(
    adata: AnnData | MuData,
    sae: AnnData | MuData | SparseAutoencoder | str | Path,
    *,
    use_rep: str | None = None,
    key: str = "sae",
    key_added: str = "sae",
    copy: bool = False,
) -> AnnData | MuData | None:
    """Encode new cells with an existing sparse autoencoder.

    Parameters
    ----------
    adata
        Cells with an embedding from the SAME model as the one the autoencoder was fitted on (for scVI: the query in
        the reference's latent space; for PCA: projected on the reference's loadings).
    sae
        An AnnData or MuData that holds one, a :class:`~sparsesc.nn.SparseAutoencoder`, or a folder it was saved to.
    use_rep
        Embedding of `adata`; by default the name it was fitted on.
    key
        Where `sae` holds it, when it is an AnnData.
    key_added
        Name under which everything is stored in `adata`.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy. Writes ``obsm["X_{key_added}"]`` and ``uns[key_added]`` with ``params``, ``weights``,
    ``metrics`` and ``features`` as :func:`fit_sae` does; metrics are on all of these cells.

    Raises
    ------
    KeyError
        If there is no autoencoder in `sae`, or no such embedding.
    ValueError
        If the embedding has another number of dimensions, or NaN or infinite values.
    TypeError
        If `sae` is none of the above.
    FileNotFoundError
        If the folder does not hold a saved autoencoder.

    Notes
    -----
    A PCA computed anew on the new cells is another space, even with the same number of dimensions: its codes would
    mean nothing. A low explained variance is the sign of it.
    """
    from sparsesc.nn._metrics import fit_metrics

    check_adata(adata)
    model, fitted_on = _resolve(sae, key)
    use_rep = use_rep or fitted_on
    if not use_rep:
        msg = "use_rep is not known: the autoencoder does not say which embedding it was fitted on. Name it."
        raise ValueError(msg)
    slots = check_key_free(adata, key_added)
    X = get_rep(adata, use_rep)
    if X.shape[1] != model.n_dimensions:
        msg = (
            f"The autoencoder was fitted on {model.n_dimensions} dimensions, but {use_rep!r} has {X.shape[1]}. "
            "Both embeddings must come from the same model."
        )
        raise ValueError(msg)
    adata = writable(adata, copy=copy)
    codes = model.encode(X)
    metrics = fit_metrics(model, X)
    params = {
        "use_rep": use_rep,
        "architecture": model.architecture,
        "n_features": model.n_features,
        "k": model.k,
        "n_obs": len(X),
        "applied": True,
    }
    write_sae(adata, slots, codes, uns_entry(key_added, codes, model, params, metrics))
    if metrics["explained_variance"] < _POOR:
        warning(
            f"The features explain none of the variance of {use_rep!r} here (explained variance "
            f"{metrics['explained_variance']:.2f}): was this embedding made by the same model?"
        )
    info(f"{metrics['explained_variance']:.1%} of the variance of {len(X)} cells, {metrics['l0']:.1f} active per cell.")
    return adata if copy else None


def _resolve(source: Any, key: str) -> tuple[SparseAutoencoder, str | None]:
    from sparsesc.get import sae as stored_sae
    from sparsesc.nn import SparseAutoencoder

    if isinstance(source, str | Path):
        model = SparseAutoencoder.load(source)
    elif isinstance(source, SparseAutoencoder):
        model = source
    elif type(source).__name__ in ("AnnData", "MuData"):
        model = stored_sae(source, key)
    else:
        kind = type(source).__name__
        msg = f"sae must be an AnnData or MuData that holds one, a SparseAutoencoder or a folder, found {kind}."
        raise TypeError(msg)
    return model, model.metadata.get("use_rep")
