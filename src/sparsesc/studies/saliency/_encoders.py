"""From genes to the units of a model, cut behind its first linear layer.

Whatever a network makes of genes passes a linear layer first: the derivative of a unit by a gene is a sum over the
nodes of that layer, weight times derivative by node. Nodes are a hundred, genes ten thousand; so derivatives are taken
by nodes, and genes come in by one product at the end.
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
class Cells:
    """What an encoder makes of a few cells up to its first layer."""

    inputs: sparse.csr_matrix
    """Cells x genes, as the network sees them."""
    nodes: torch.Tensor
    """Cells x nodes: what the first linear layer gives."""
    rest: tuple[torch.Tensor, ...] = ()
    """What else the layers behind it take, one row a cell."""

    def take(self, rows: np.ndarray) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Nodes and the rest of some cells, repeats allowed."""
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
    """A module: from nodes (and the rest) to units."""
    read: Callable[[np.ndarray], Cells]
    """Cells by their positions in `adata`."""
    empty: Callable[[Cells], torch.Tensor]
    """Nodes of the same cells if all genes were 0."""
    use_rep: str = ""
    """The embedding that these units are, where they have a name in ``obsm``."""
    info: dict[str, Any] = field(default_factory=dict)

    def encode(self, cells: Cells) -> np.ndarray:
        """Cells x units."""
        import torch

        with torch.no_grad():
            return self.behind(cells.nodes, *cells.rest).cpu().numpy()

    def blocks(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Cells]]:
        """Cells a few at a time."""
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            yield part, self.read(part)


def as_encoder(adata: AnnData, model: Any, *, layer: str | None) -> Encoder:
    """The encoder of whatever the user has.

    Raises
    ------
    KeyError
        If the model does not know the cells, or there are no components in ``varm``.
    TypeError
        If `model` is nothing with an encoder that is known here.
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
    """The features of a sparse autoencoder as units: what their activations are before the threshold.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or its embedding is gone.
    ValueError
        If its embedding is not what the encoder gives.
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
            f"adata.obsm[{use_rep!r}], which {key!r} was fitted on, is not what this model makes of the cells (root "
            f"mean square difference {gap:.2g}): was it made by another model, or corrected afterwards?"
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
    """The mean of the latent of SCVI and its kin."""
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
        Its first linear layer: genes are the first columns of what goes in, covariates may follow.
    behind
        The module behind.
    layers
        The module that covariates are given to besides; ``None``: there are none.
    """
    import torch

    genes = pd.Index(np.asarray(model.get_var_names())).astype(str)
    n_genes = len(genes)
    module = model.module
    source, position = _rows_of(adata, model)

    def read(rows: np.ndarray) -> Cells:
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
            # the encoder draws a latent, which is not used: the user's random numbers must not notice
            with torch.random.fork_rng(devices=[]), torch.no_grad(), evaluating(module):
                for tensors in loader:
                    module.inference(**module._get_inference_input(tensors))
                    inputs = sparse.csr_matrix(seen["inputs"][:, :n_genes].cpu().numpy())
                    parts.append((inputs, seen["nodes"].clone(), seen["covariates"]))
        finally:
            for hook in hooks:
                hook.remove()
        rest = zip(*(part[2] for part in parts), strict=True)
        return Cells(
            sparse.vstack([part[0] for part in parts], format="csr"),
            torch.cat([part[1] for part in parts]),
            tuple(torch.cat(values) for values in rest),
        )

    weight = first.weight.detach()[:, :n_genes].cpu().numpy().astype(np.float32)

    def empty(cells: Cells) -> torch.Tensor:
        share = np.asarray(cells.inputs @ weight.T, dtype=np.float32)
        return cells.nodes - torch.as_tensor(share, device=cells.nodes.device)

    units = pd.Index([f"{prefix}_{i}" for i in range(int(model.module.n_latent))])
    found = Encoder(genes, units, weight, behind, read, empty)
    _confirm(found, model, source, position[: min(len(position), _CHECKED)])
    return found


def _confirm(encoder: Encoder, model: Any, source: AnnData, position: np.ndarray) -> None:
    """Refuse a model whose own latent is another one: kinds derived from the known ones may encode as they like."""
    import torch

    ours = encoder.encode(encoder.read(np.arange(len(position))))
    with torch.random.fork_rng(devices=[]):
        own = np.asarray(model.get_latent_representation(adata=source, indices=position))
    if ours.shape != own.shape or np.abs(ours - own).max() > _OFF * max(float(own.std()), 1e-12):
        msg = f"{type(model).__name__} encodes in a way of its own, which is not supported here."
        raise ValueError(msg)


def _rows_of(adata: AnnData, model: Any) -> tuple[AnnData, np.ndarray]:
    """The AnnData that counts are read from, and where in it the cells of `adata` are."""
    known = model.adata
    if not known.obs_names.is_unique:
        msg = "Cell names repeat in the AnnData of the model: make them unique and load it again."
        raise ValueError(msg)
    rows = known.obs_names.get_indexer(adata.obs_names)
    if (rows >= 0).all():
        return known, rows
    missing = adata.obs_names[rows < 0]
    msg = (
        f"{len(missing)} of {adata.n_obs} cells are not in the AnnData that the model holds: {listing(missing)}. "
        "Load the model with these cells: type(model).load(folder, adata=...)."
    )
    raise KeyError(msg)


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

    def read(rows: np.ndarray) -> Cells:
        block = matrix[rows]
        block = block.compute() if hasattr(block, "compute") else block
        inputs = sparse.csr_matrix(block)[:, used].astype(np.float32)
        return Cells(inputs, torch.as_tensor(Z[rows]))

    def empty(cells: Cells) -> torch.Tensor:
        return cells.nodes - torch.as_tensor(np.asarray(cells.inputs @ weight.T, dtype=np.float32))

    units = pd.Index([f"PC{i + 1}" for i in range(Z.shape[1])])
    return Encoder(names[used].astype(str), units, weight, torch.nn.Identity(), read, empty, use_rep="X_pca")
