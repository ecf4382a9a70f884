"""From genes to the units of a model, cut behind its first linear layer.

The genes of every network here pass a linear layer first: the derivative of a unit by a gene is a sum over the nodes of
that layer, weight times derivative by node. There are a hundred nodes and ten thousand genes, so derivatives are
computed by node, and one product at the end turns them into derivatives by gene.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc._values import check_choice, listing
from sparsesc.decoders._torch import evaluating
from sparsesc.door import _checks as check
from sparsesc.door import _keys

if TYPE_CHECKING:
    import torch
    from anndata import AnnData

_ROWS = 512
_CHECKED = 200
_OFF = 1e-3  # of the embedding's standard deviation
_PCS = "PCs"


@dataclass(frozen=True)
class FirstLayer:
    """A few cells as they enter an encoder, and behind its first layer."""

    inputs: sparse.csr_matrix
    """Cells x genes, as the network sees them."""
    nodes: torch.Tensor
    """Cells x nodes: outputs of the first linear layer."""
    rest: tuple[torch.Tensor, ...] = ()
    """Other inputs of the layers behind it, one row per cell."""

    def take(self, rows: np.ndarray) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Nodes and other inputs of some cells, which may repeat."""
        import torch

        index = torch.as_tensor(rows, device=self.nodes.device)
        return self.nodes[index], tuple(value[index] for value in self.rest)


@dataclass(frozen=True)
class Encoder:
    """A model from genes to units."""

    genes: pd.Index
    units: pd.Index
    weight: np.ndarray
    """Nodes x genes: the first linear layer."""
    behind: Callable[..., torch.Tensor]
    """A module that maps nodes (and the rest) to units."""
    read: Callable[[np.ndarray], FirstLayer]
    """Takes positions in `adata`."""
    use_rep: str | None = None
    """Entry of ``obsm`` that holds these units, if there is one."""
    info: dict[str, Any] = field(default_factory=dict)

    def encode(self, cells: FirstLayer) -> np.ndarray:
        """Cells x units."""
        import torch

        with torch.no_grad():
            return self.behind(cells.nodes, *cells.rest).cpu().numpy()

    def empty(self, cells: FirstLayer) -> torch.Tensor:
        """Nodes of the same cells if all genes were 0."""
        import torch

        share = np.asarray(cells.inputs @ self.weight.T, dtype=np.float32)
        return cells.nodes - torch.as_tensor(share, device=cells.nodes.device)

    def blocks(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, FirstLayer]]:
        """Cells in blocks, with their positions."""
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            yield part, self.read(part)


def as_encoder(adata: AnnData, model: Any, *, layer: str | None) -> Encoder:
    """The encoder of a model, or of principal components.

    Raises
    ------
    KeyError
        If the model does not hold the cells, or there are no components in ``varm``.
    TypeError
        If `model` is of an unsupported kind.
    ValueError
        If the model was not trained, keeps no counts, or encodes in a way that is not supported.
    """
    if isinstance(model, str):
        check_choice(model, ["pca"], name="model")
        return _from_pca(adata, layer)
    if layer is not None:
        msg = f"layer={layer!r} is for model='pca': a model of scvi-tools knows its own layer. Leave it out."
        raise ValueError(msg)
    name = type(model).__name__
    if not hasattr(model, "module") or not hasattr(model, "adata_manager"):
        msg = f"model must be an OrthogonalAE, SCVI, SCANVI, LinearSCVI or DRVI, or 'pca', found {name}."
        raise TypeError(msg)
    from scvi.model import SCANVI, SCVI, LinearSCVI

    from sparsesc.models import OrthogonalAE

    if not isinstance(model, SCVI | SCANVI | LinearSCVI | OrthogonalAE):
        msg = f"{name} has no encoder that is known here: OrthogonalAE, SCVI, SCANVI, LinearSCVI, DRVI and 'pca' have."
        raise TypeError(msg)
    if not model.is_trained:
        msg = f"This {name} was not trained: run model.train() first."
        raise ValueError(msg)
    if isinstance(model, OrthogonalAE):
        return _from_model(adata, model, model.module.encoder[0], model.module.encoder[1:], None, "oae")
    return _from_scvi(adata, model)


def compose(adata: AnnData, encoder: Encoder, key: str) -> Encoder:
    """The features of a sparse autoencoder as units: their activations before the threshold.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or its embedding is gone.
    ValueError
        If its embedding is not the output of the encoder.
    """
    import torch

    from sparsesc.get import sae as stored_sae

    sae = stored_sae(adata, key)
    use_rep = str(check.get_sae_slot(adata, key)[_keys.PARAMS]["use_rep"])
    Z = check.get_rep(adata, use_rep)
    if Z.shape[1] != len(encoder.units):
        msg = (
            f"The sparse autoencoder {key!r} was fitted on {use_rep!r} with {Z.shape[1]} dimensions, but the model "
            f"gives {len(encoder.units)}: pass the model that made this embedding."
        )
        raise ValueError(msg)
    rows = np.unique(np.linspace(0, adata.n_obs - 1, min(adata.n_obs, _CHECKED)).astype(int))
    cells = encoder.read(rows)
    gap = float(np.sqrt(np.mean((encoder.encode(cells) - Z[rows]) ** 2)))
    if gap > _OFF * max(float(Z[rows].std()), 1e-12):
        msg = (
            f"adata.obsm[{use_rep!r}], which {key!r} was fitted on, is not the output of this model for these cells "
            f"(root mean square difference {gap:.2g}): was it made by another model, or corrected afterwards?"
        )
        raise ValueError(msg)
    device = cells.nodes.device

    class Features(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.behind = encoder.behind
            self.W = torch.as_tensor(sae.W_enc, device=device)
            self.b = torch.as_tensor(sae.b_enc - sae.b_dec @ sae.W_enc, device=device)

        def forward(self, nodes: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
            return self.behind(nodes, *rest) @ self.W + self.b

    names = _keys.sae_keys(key).feature_names(sae.n_features)
    return replace(encoder, units=pd.Index(names), behind=Features(), use_rep=use_rep)


def _from_scvi(adata: AnnData, model: Any) -> Encoder:
    """The latent mean of SCVI and of models derived from it."""
    import torch

    module = model.module
    if getattr(model, "minified_data_type", None) is not None:
        msg = (
            "This model is minified: its counts are gone, and only counts can be encoded. Use it as it was before, or "
            "load it with the counts."
        )
        raise ValueError(msg)
    if module.z_encoder.distribution != "normal":
        msg = (
            f"latent_distribution={module.z_encoder.distribution!r} is not supported: the latent is no function of the "
            "cell alone there. Train with latent_distribution='normal'."
        )
        raise ValueError(msg)
    copied = deepcopy(module.z_encoder).requires_grad_(False).eval()
    copied.encoder.fc_layers[0][0] = torch.nn.Identity()  # nodes go in where genes went in

    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = copied

        def forward(self, nodes: torch.Tensor, *covariates: torch.Tensor) -> torch.Tensor:
            return self.layers.mean_encoder(self.layers.encoder(nodes, *covariates))

    layers = module.z_encoder.encoder
    return _from_model(adata, model, layers.fc_layers[0][0], Mean(), layers, "z")


def _from_model(adata: AnnData, model: Any, first: Any, behind: Any, layers: Any, prefix: str) -> Encoder:
    """An encoder of a model on the base classes of scvi-tools.

    Parameters
    ----------
    first
        Its first linear layer. Genes are the first columns of its input; covariates may follow.
    behind
        The module behind it.
    layers
        The module that also takes covariates; ``None``: there are none.
    """
    import torch

    genes = pd.Index(np.asarray(model.get_var_names())).astype(str)
    n_genes = len(genes)
    module = model.module
    source, position = _rows_of(adata, model)

    def read(rows: np.ndarray) -> FirstLayer:
        seen: dict[str, Any] = {"covariates": ()}

        def before(_: Any, args: tuple[Any, ...]) -> None:
            seen["covariates"] = args[1:]

        def after(_: Any, args: tuple[Any, ...], out: torch.Tensor) -> None:
            seen["inputs"], seen["nodes"] = args[0], out

        hooks = [first.register_forward_hook(after)]
        if layers is not None:
            hooks.append(layers.register_forward_pre_hook(before))
        parts = []
        loader = model._make_data_loader(adata=source, indices=position[rows], batch_size=_ROWS, shuffle=False)
        try:
            # the encoder draws a latent that is not used: the user's stream of random numbers must not move
            with torch.random.fork_rng(devices=[]), torch.no_grad(), evaluating(module):
                for tensors in loader:
                    module.inference(**module._get_inference_input(tensors))
                    x = sparse.csr_matrix(seen["inputs"][:, :n_genes].cpu().numpy())
                    parts.append((x, seen["nodes"].clone(), seen["covariates"]))
        finally:
            for hook in hooks:
                hook.remove()
        inputs, nodes, covariates = zip(*parts, strict=True)
        rest = tuple(torch.cat(values) for values in zip(*covariates, strict=True))
        return FirstLayer(sparse.vstack(inputs, format="csr"), torch.cat(nodes), rest)

    weight = first.weight.detach()[:, :n_genes].cpu().numpy().astype(np.float32)
    units = pd.Index([f"{prefix}_{i}" for i in range(int(model.module.n_latent))])
    encoder = Encoder(genes, units, weight, behind, read)
    _confirm(encoder, model, source, position[:_CHECKED])
    return encoder


def _confirm(encoder: Encoder, model: Any, source: AnnData, position: np.ndarray) -> None:
    """Refuse a model whose latent differs from what is computed here: derived classes may encode in other ways."""
    import torch

    ours = encoder.encode(encoder.read(np.arange(len(position))))
    with torch.random.fork_rng(devices=[]):
        theirs = np.asarray(model.get_latent_representation(adata=source, indices=position))
    if ours.shape != theirs.shape or np.abs(ours - theirs).max() > _OFF * max(float(theirs.std()), 1e-12):
        msg = f"{type(model).__name__} encodes in a way of its own, which is not supported here."
        raise ValueError(msg)


def _rows_of(adata: AnnData, model: Any) -> tuple[AnnData, np.ndarray]:
    """The AnnData that counts are read from, and the positions of the cells of `adata` in it."""
    source = model.adata
    if not source.obs_names.is_unique:
        msg = "Cell names repeat in the AnnData of the model: make them unique and load it again."
        raise ValueError(msg)
    rows = source.obs_names.get_indexer(adata.obs_names)
    missing = adata.obs_names[rows < 0]
    if len(missing):
        msg = (
            f"{len(missing)} of {adata.n_obs} cells are not in the AnnData that the model holds: {listing(missing)}. "
            "Load the model with these cells: type(model).load(folder, adata=...)."
        )
        raise KeyError(msg)
    return source, rows


def _from_pca(adata: AnnData, layer: str | None) -> Encoder:
    """Principal components: the derivative is the loading, everywhere."""
    import torch

    if _PCS not in adata.varm:
        msg = f"Did not find adata.varm['{_PCS}']. Available: {listing(adata.varm.keys())}. Run sc.pp.pca first."
        raise KeyError(msg)
    loadings: np.ndarray = np.asarray(adata.varm[_PCS], dtype=np.float32)
    Z = check.get_rep(adata, "X_pca")
    matrix, names = check.get_expression(adata, layer=layer, use_raw=False)
    used = np.flatnonzero(np.abs(loadings).sum(1) > 0)
    weight = np.ascontiguousarray(loadings[used].T)

    def read(rows: np.ndarray) -> FirstLayer:
        block = matrix[rows]
        block = block.compute() if hasattr(block, "compute") else block
        inputs = sparse.csr_matrix(block)[:, used].astype(np.float32)
        return FirstLayer(inputs, torch.as_tensor(Z[rows]))

    units = pd.Index([f"PC{i + 1}" for i in range(Z.shape[1])])
    return Encoder(names[used].astype(str), units, weight, torch.nn.Identity(), read, use_rep="X_pca")
