from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sparsesc._logging import warning
from sparsesc._values import listing
from sparsesc.door._checks import check_adata, get_expression, get_rep
from sparsesc.door._counts import LARGEST_LOG

from ._base import Decoder
from ._function import FunctionDecoder
from ._linear import LinearDecoder
from ._scvi import ScviDecoder
from ._torch import TorchDecoder

if TYPE_CHECKING:
    from anndata import AnnData

_PCS = "PCs"
_CHECKED = 500  # cells on which the components are checked
_OFF = 1e-2  # of the embedding's standard deviation


def as_decoder(adata: AnnData, decoder: Any = None, *, use_rep: str, layer: str | None = None) -> Decoder:
    """Make a decoder, from an embedding to genes, from a model, loadings or a function.

    Parameters
    ----------
    adata
        Cells with the embedding.
    decoder
        ``"pca"``: ``varm["PCs"]``, with the means of the expression matrix. A model of scvi-tools (SCVI, SCANVI,
        LinearSCVI, DRVI). A DataFrame of loadings, genes x dimensions, as from ``LinearSCVI.get_loadings()``. A torch
        module, or a function of arrays, whose result has one column for each gene of `adata`, log-normalized. Your own
        :class:`~sparsesc.decoders.Decoder`. ``None``: ``"pca"`` when the embedding comes from it.
    use_rep
        Entry of ``obsm`` that is decoded.
    layer
        With ``"pca"``: layer that the components were computed from, instead of ``X``.

    Returns
    -------
    The decoder.

    Raises
    ------
    KeyError
        If there are no components in ``varm``.
    TypeError
        If `decoder` cannot decode.
    ValueError
        If there is no decoder for this embedding, or it has another number of dimensions or genes.

    See Also
    --------
    sparsesc.tl.steer : Decodes steered cells.
    sparsesc.tl.feature_genes : With ``method="decoder"``, genes that a feature changes.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.pbmc68k_reduced()
    >>> loadings = pd.DataFrame(np.ones((2, 50)), index=["CD3D", "MS4A1"])
    >>> decoder = ssc.decoders.as_decoder(adata, loadings, use_rep="X_pca")
    >>> decoder.decode(adata.obsm["X_pca"][:3]).shape
    (3, 2)
    """
    import torch

    check_adata(adata)
    Z = get_rep(adata, use_rep)
    if decoder is None:
        if use_rep != "X_pca" or _PCS not in adata.varm:
            msg = (
                f"There is no decoder for {use_rep!r}: pass decoder= a model of scvi-tools, a DataFrame of loadings "
                "(genes x dimensions), a torch module or a function; or 'pca' for principal components."
            )
            raise ValueError(msg)
        decoder = "pca"
    if isinstance(decoder, str):
        if decoder != "pca":
            msg = f"The only decoder with a name is 'pca', found {decoder!r}. Pass a model, loadings or a function."
            raise ValueError(msg)
        result: Decoder = _from_pca(adata, Z, use_rep, layer)
    elif isinstance(decoder, pd.DataFrame):
        result = LinearDecoder(decoder)
    elif any(kind.__module__.startswith("scvi.model") for kind in type(decoder).__mro__):  # a model, or made from one
        result = ScviDecoder(decoder)
    elif isinstance(decoder, type):
        msg = f"decoder must be an object, found the class {decoder.__name__}. Make one first."
        raise TypeError(msg)
    elif isinstance(decoder, Decoder):
        result = decoder
    elif isinstance(decoder, torch.nn.Module):
        result = TorchDecoder(decoder, adata.var_names)
    elif callable(decoder):
        result = FunctionDecoder(decoder, adata.var_names)
    else:
        msg = (
            "decoder must be 'pca', a model of scvi-tools, a DataFrame of loadings, a torch module or a function, "
            f"found {type(decoder).__name__}."
        )
        raise TypeError(msg)
    _try(result, adata, Z, use_rep)
    return result


def _try(decoder: Decoder, adata: AnnData, Z: np.ndarray, use_rep: str) -> None:
    """Decode one cell, so that a decoder that does not fit is an error at once."""
    dimensions = getattr(decoder, "n_dimensions", Z.shape[1])
    if dimensions != Z.shape[1]:
        msg = f"The decoder takes {dimensions} dimensions, but {use_rep!r} has {Z.shape[1]}. Do they belong together?"
        raise ValueError(msg)
    out = np.asarray(decoder.decode(Z[:1], decoder.covariates(adata.obs_names[:1])))
    if out.shape != (1, len(decoder.genes)):
        msg = (
            f"The decoder gave shape {out.shape} for one cell, but there are {len(decoder.genes)} genes "
            f"({listing(decoder.genes[:3])}, ...). If its genes are others, wrap it: "
            "ssc.decoders.TorchDecoder(function, genes) or ssc.decoders.FunctionDecoder(function, genes)."
        )
        raise ValueError(msg)
    if not np.isfinite(out).all():
        msg = f"The decoder gives NaN or infinite values for a cell of {use_rep!r}."
        raise ValueError(msg)


def _from_pca(adata: AnnData, Z: np.ndarray, use_rep: str, layer: str | None) -> LinearDecoder:
    """Loadings of the genes that the components use, and the means that agree with the scores of the cells."""
    if _PCS not in adata.varm:
        msg = f"Did not find adata.varm['{_PCS}']. Available: {listing(adata.varm.keys())}. Run sc.pp.pca first."
        raise KeyError(msg)
    loadings: np.ndarray = np.asarray(adata.varm[_PCS], dtype=np.float64)
    if loadings.shape[1] != Z.shape[1]:
        msg = (
            f"adata.varm['{_PCS}'] has {loadings.shape[1]} components, but {use_rep!r} has {Z.shape[1]} dimensions: "
            "they do not belong together."
        )
        raise ValueError(msg)
    used = np.flatnonzero(np.abs(loadings).sum(1) > 0)
    loadings = loadings[used]
    matrix, genes = get_expression(adata, layer=layer, use_raw=False)
    if hasattr(matrix, "to_memory"):  # a backed sparse dataset
        matrix = matrix.to_memory()
    matrix = matrix[:, used]
    means = matrix.mean(axis=0)
    means = np.asarray(means.compute() if hasattr(means, "compute") else means, dtype=np.float64).ravel()
    # How far the scores are from those of this matrix. A constant comes from the means (the components may be of a
    # larger set of cells); anything else means that the components are of other values.
    rows = np.unique(np.linspace(0, len(Z) - 1, min(len(Z), _CHECKED)).astype(int))
    some = matrix[rows]
    some = some.toarray() if hasattr(some, "toarray") else np.asarray(some)
    gap = Z[rows] - (np.asarray(some, dtype=np.float64) - means) @ loadings
    shift = gap.mean(axis=0)
    if np.sqrt(np.mean((gap - shift) ** 2)) > _OFF * max(float(Z[rows].std()), 1e-12):
        warning(
            f"{use_rep!r} is not the product of adata.varm['{_PCS}'] and the expression matrix (was it corrected, or "
            "computed from another layer?): decoded expression is approximate. Name the layer, or pass a decoder."
        )
        shift = np.zeros_like(shift)
    means = means - np.linalg.lstsq(loadings.T, shift, rcond=None)[0]
    # negative values are scaled, or residuals
    log1p = adata.uns.get("log1p")
    base = log1p.get("base") if isinstance(log1p, Mapping) else None
    natural = some.min(initial=0) >= 0 and some.max(initial=0) <= LARGEST_LOG and base is None
    table = pd.DataFrame(loadings, index=pd.Index(genes)[used])
    return LinearDecoder(table, means, scale="log1p" if natural else "linear")
