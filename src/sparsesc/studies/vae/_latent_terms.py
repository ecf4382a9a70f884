"""What models with a latent space make of cells: positions, their spread, and the parts of the objective, by cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from sparsesc._values import check_choice, listing
from sparsesc.decoders._torch import evaluating
from sparsesc.door import _checks as check

if TYPE_CHECKING:
    import torch
    from anndata import AnnData

_ROWS = 512
_COUNTS = "X"  # of scvi-tools' registry
_POSTERIOR = "qz"  # of what inference gives
_SUPPORTED = "SCVI, SCANVI, LinearSCVI, OrthogonalAE, DGD"


type Scorer = Callable[[Any, slice], torch.Tensor]


@runtime_checkable
class PointModel(Protocol):
    """A model that places new cells and tells how probable their counts are there, like DGD."""

    def project(self, adata: AnnData) -> np.ndarray:
        """Positions of cells, cells x dimensions."""
        ...

    def get_log_likelihood(self, adata: AnnData, *, latent: np.ndarray) -> np.ndarray:
        """Log probability of the counts of each cell at its position."""
        ...


@dataclass(frozen=True)
class LatentTerms:
    """One row a cell."""

    mean: np.ndarray
    """Cells x dimensions: the mean of the posterior, or the position."""
    variance: np.ndarray | None
    """Of the posterior; ``None`` for models that give positions only."""
    reconstruction: np.ndarray
    """Minus log-likelihood, averaged over draws from the posterior."""
    prior: np.ndarray | None
    """Kullback-Leibler divergence from the prior; of positions, minus the log density of the prior there."""
    also: np.ndarray | None = None
    """Another log-likelihood, where one was asked for, averaged over the same draws."""

    @property
    def kl(self) -> np.ndarray | None:
        """Cells x dimensions: divergence of each dimension's posterior from a standard normal variable."""
        if self.variance is None:
            return None
        return 0.5 * (self.mean**2 + self.variance - np.log(self.variance) - 1)


def check_model(model: Any) -> None:
    """Refuse what is not a trained model of a kind that is known here.

    Raises
    ------
    TypeError
        If it is no such model.
    ValueError
        If it was not trained, or keeps no counts.
    """
    name = type(model).__name__
    if isinstance(model, type) or not (_has_network(model) or isinstance(model, PointModel)):
        what = f"the class {model.__name__}" if isinstance(model, type) else name
        msg = (
            f"Cannot judge {what}. Supported are {_SUPPORTED}, and models with the methods project(adata) and "
            "get_log_likelihood(adata, latent=)."
        )
        raise TypeError(msg)
    if not getattr(model, "is_trained", True):
        msg = f"This {name} was not trained: run model.train() first."
        raise ValueError(msg)
    if getattr(model, "minified_data_type", None) is not None:
        msg = (
            f"This {name} is minified: its counts are gone, and without them nothing can be reconstructed. Load the "
            "model with the counts."
        )
        raise ValueError(msg)


def read_terms(
    model: Any,
    adata: AnnData,
    *,
    n_draws: int,
    seed: int,
    decode_as: str | None = None,
    also: Scorer | None = None,
) -> LatentTerms:
    """What a model makes of cells that it need not know; `adata` may be changed, so pass a copy.

    `also` takes the distribution of the values of some rows, and gives one number a row (of networks only).

    Raises
    ------
    KeyError
        If genes of the model are missing.
    ValueError
        If cells are of batches that the model does not know.
    """
    if _has_network(model):
        return _from_network(model, _prepared(model, adata, decode_as), n_draws=n_draws, seed=seed, also=also)
    if decode_as is not None:
        msg = f"decode_as is for models that are told the batch by scvi-tools; {type(model).__name__} is not one."
        raise ValueError(msg)
    latent = np.asarray(model.project(adata), dtype=np.float64)
    reconstruction = -np.asarray(model.get_log_likelihood(adata, latent=latent.astype(np.float32)), dtype=np.float64)
    if latent.ndim != 2 or reconstruction.shape != (len(latent),) or len(latent) != adata.n_obs:
        msg = (
            f"{type(model).__name__} gave positions of shape {latent.shape} and log-likelihoods of shape "
            f"{reconstruction.shape} for {adata.n_obs} cells: one row and one number a cell are needed."
        )
        raise ValueError(msg)
    return LatentTerms(latent, None, reconstruction, _log_prior(model, latent))


def trained_cells(model: Any, adata: AnnData) -> np.ndarray | None:
    """Which cells the model was trained on, by name and counts; ``None`` where that cannot be told."""
    own = getattr(model, "adata", None)
    parts = [getattr(model, f"{name}_indices", None) for name in ("train", "validation", "test")]
    if own is None or parts[0] is None:
        return None
    sizes = [0 if part is None else len(part) for part in parts]
    if sum(sizes) != own.n_obs or not own.obs_names.is_unique:  # loaded with other cells than it was trained on
        return None
    trained = np.asarray(parts[0])
    place = pd.Index(own.obs_names[trained]).get_indexer(adata.obs_names)
    found = np.flatnonzero(place >= 0)
    if not len(found):
        return np.zeros(adata.n_obs, bool)
    # names such as AAACCTG-1 come back in other samples: the same cell has the same counts
    layer = _setup(model).get("layer")
    layer = layer if isinstance(layer, str) and layer in adata.layers else None
    genes = own.var_names.intersection(adata.var_names)
    theirs = _totals(own[own.obs_names[trained][place[found]], genes], layer)
    same = np.zeros(adata.n_obs, bool)
    same[found] = np.isclose(theirs, _totals(adata[found, genes], layer), rtol=1e-5)
    return same


def trained_labels(model: Any, key: str) -> set[str] | None:
    """Labels that the cells of the training had in a column of ``obs``; ``None`` where that cannot be told."""
    own = getattr(model, "adata", None)
    if own is None or key not in own.obs.columns or trained_cells(model, own) is None:
        return None
    used = np.concatenate(
        [np.asarray(part) for part in (model.train_indices, model.validation_indices) if part is not None]
    )
    return set(own.obs[key].iloc[used].dropna().astype(str))


def _totals(adata: AnnData, layer: str | None) -> np.ndarray:
    matrix: Any = adata.X if layer is None else adata.layers[layer]
    return np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()


def _has_network(model: Any) -> bool:
    """Whether it is one of the models whose network can be read batch by batch."""
    if not (hasattr(model, "module") and hasattr(model, "adata_manager")):
        return False
    from scvi.model import SCANVI, SCVI, LinearSCVI

    from sparsesc.models import OrthogonalAE

    return isinstance(model, SCVI | SCANVI | LinearSCVI | OrthogonalAE)


def _setup(model: Any) -> dict[str, Any]:
    registry = getattr(model, "registry", None) or getattr(model, "registry_", None) or {}
    return dict(registry.get("setup_args", {}))


def _prepared(model: Any, adata: AnnData, decode_as: str | None) -> AnnData:
    """Cells with the model's genes in its order, and batches that it knows."""
    genes = pd.Index(np.asarray(model.get_var_names()).astype(str))
    missing = genes[~genes.isin(adata.var_names)]
    if len(missing):
        msg = (
            f"{len(missing)} of the {len(genes)} genes of the model are not in adata: {listing(missing)}. Genes "
            "that were measured but never seen must be there as zeros."
        )
        raise KeyError(msg)
    if not adata.var_names.astype(str).equals(genes):
        adata = adata[:, genes].copy()
    key = _setup(model).get("batch_key")
    if key is None:
        if decode_as is not None:
            msg = f"decode_as={decode_as!r}, but the model was set up without batch_key: leave it out."
            raise ValueError(msg)
        return adata
    known = [str(c) for c in model.adata_manager.get_state_registry("batch").categorical_mapping]
    if decode_as is not None:
        check_choice(decode_as, known, name="decode_as")
        adata.obs[key] = pd.Categorical([decode_as] * adata.n_obs, categories=known)
        return adata
    found = check.get_obs_column(adata, key).astype(str)
    new = sorted(set(found) - set(known))
    if new:
        msg = (
            f"The decoder was trained with batch_key={key!r} on {listing(known)} and does not know "
            f"{listing(new)}. Train without {key!r} as batch (or with a batch that held-out donors share), or "
            f"decode all cells as if they were of one known batch: decode_as={known[0]!r}."
        )
        raise ValueError(msg)
    return adata


def _from_network(model: Any, adata: AnnData, *, n_draws: int, seed: int, also: Scorer | None) -> LatentTerms:
    """Reconstruction and divergence, batch by batch; without a posterior there is nothing to draw."""
    import torch

    module = model.module
    parts: dict[str, list[np.ndarray]] = {"mean": [], "variance": [], "reconstruction": [], "prior": [], "also": []}
    stop = 0
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), batches(model, adata) as loader:
        torch.manual_seed(seed % 2**63)
        for tensors in loader:
            start, stop = stop, stop + len(tensors[_COUNTS])
            misfit: Any = 0.0
            objective: Any = 0.0
            other: Any = 0.0
            done = 0
            inferred: dict[str, Any] = {}
            while done < n_draws and (done == 0 or _POSTERIOR in inferred):
                inferred = module.inference(**module._get_inference_input(tensors))
                given = module.generative(**module._get_generative_input(tensors, inferred))
                misfit = misfit - given["px"].log_prob(tensors[_COUNTS]).sum(-1).double()
                if also is not None:
                    other = other + also(given["px"], slice(start, stop)).double()
                if _POSTERIOR in inferred:
                    lost = module.loss(tensors, inferred, given)
                    objective = objective + (_summed(lost.reconstruction_loss) + _summed(lost.kl_local)).double()
                done += 1
            found = {"reconstruction": misfit / done}
            if _POSTERIOR in inferred:
                found |= {"mean": inferred[_POSTERIOR].loc, "variance": inferred[_POSTERIOR].scale.square()}
                # the whole objective less the reconstruction: models divide it in ways of their own
                found["prior"] = (objective - misfit) / done
            else:
                found["mean"] = inferred["z"]
            if also is not None:
                found["also"] = other / done
            for name, value in found.items():
                parts[name].append(value.double().cpu().numpy())
    joined = {name: np.concatenate(values) if values else None for name, values in parts.items()}
    return LatentTerms(**joined)  # type: ignore[arg-type]


@contextmanager
def batches(model: Any, adata: AnnData) -> Iterator[Iterator[dict[str, torch.Tensor]]]:
    """Cells on the device of the network, in their order, for a look without a trace.

    The network is as in evaluation, and the model, which keeps a hold on every AnnData that it was shown, forgets it.
    """
    import torch

    held = model._per_instance_manager_store.setdefault(model.id, {})
    known, device = set(held), model.module.device
    try:
        loader = model._make_data_loader(adata=model._validate_anndata(adata), batch_size=_ROWS, shuffle=False)
        with torch.inference_mode(), evaluating(model.module):
            yield ({name: value.to(device) for name, value in t.items() if value is not None} for t in loader)
    finally:
        for name in set(held) - known:
            del held[name]


def _summed(value: Any) -> Any:
    return sum(value.values()) if isinstance(value, dict) else value


def _log_prior(model: Any, latent: np.ndarray) -> np.ndarray | None:
    """Minus the log density of the mixture of a DGD; ``None`` for models without one."""
    mixture = getattr(getattr(model, "module", None), "mixture", None)
    if mixture is None:
        return None
    import torch

    with torch.no_grad():
        z = torch.as_tensor(latent, dtype=torch.float32, device=mixture.means.device)
        return -mixture.log_density(z).double().cpu().numpy()
