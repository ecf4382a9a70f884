"""Cells in the latent space of a model: positions, their spread, and the parts of the objective, by cell."""

from __future__ import annotations

from collections import defaultdict
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
_POSTERIOR = "qz"  # among the outputs of inference
_SUPPORTED = "SCVI, SCANVI, LinearSCVI, OrthogonalAE, DGD"


type Scorer = Callable[[Any, slice], torch.Tensor]


@runtime_checkable
class PointModel(Protocol):
    """A model that places new cells and scores the probability of their counts there, like DGD."""

    def project(self, adata: AnnData) -> np.ndarray:
        """Positions of cells, cells x dimensions."""
        ...

    def get_log_likelihood(self, adata: AnnData, *, latent: np.ndarray) -> np.ndarray:
        """Log probability of the counts of each cell at its position."""
        ...


@dataclass(frozen=True)
class ElboTerms:
    """Parts of the objective, one row per cell."""

    mean: np.ndarray
    """Cells x dimensions: the mean of the posterior, or the position."""
    variance: np.ndarray | None
    """Variance of the posterior; ``None`` for models that only give positions."""
    reconstruction: np.ndarray
    """Minus log-likelihood, averaged over draws from the posterior."""
    prior: np.ndarray | None
    """Kullback-Leibler divergence from the prior; of positions, minus the log density of the prior there."""
    also: np.ndarray | None = None
    """Another log-likelihood, if requested, averaged over the same draws."""

    @property
    def kl(self) -> np.ndarray | None:
        """Cells x dimensions: divergence of each dimension's posterior from a standard normal variable."""
        if self.variance is None:
            return None
        return 0.5 * (self.mean**2 + self.variance - np.log(self.variance) - 1)


def check_model(model: Any) -> None:
    """Refuse everything but a trained model of a supported kind.

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
            f"Cannot evaluate {what}. Supported are {_SUPPORTED}, and models with the methods project(adata) and "
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
    model: Any, adata: AnnData, *, n_draws: int, seed: int, decode_as: str | None = None, also: Scorer | None = None
) -> ElboTerms:
    """Positions of cells in a model, new ones or not, and the parts of their objective; may change `adata`.

    `also` takes the distribution of the values of some rows, and returns one number per row (networks only).

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
        msg = (
            f"decode_as is for models whose decoder takes the batch from scvi-tools; {type(model).__name__} is not one."
        )
        raise ValueError(msg)
    latent = np.asarray(model.project(adata), dtype=np.float64)
    reconstruction = -np.asarray(model.get_log_likelihood(adata, latent=latent.astype(np.float32)), dtype=np.float64)
    if latent.ndim != 2 or reconstruction.shape != (len(latent),) or len(latent) != adata.n_obs:
        msg = (
            f"{type(model).__name__} gave positions of shape {latent.shape} and log-likelihoods of shape "
            f"{reconstruction.shape} for {adata.n_obs} cells: one row and one number per cell are needed."
        )
        raise ValueError(msg)
    return ElboTerms(latent, None, reconstruction, _log_prior(model, latent))


def trained_cells(model: Any, adata: AnnData) -> np.ndarray | None:
    """Which cells the model was trained on, by name and counts; ``None`` if that is unknown."""
    held = getattr(model, "adata", None)
    parts = [getattr(model, f"{name}_indices", None) for name in ("train", "validation", "test")]
    if held is None or parts[0] is None:
        return None
    sizes = [0 if part is None else len(part) for part in parts]
    if sum(sizes) != held.n_obs or not held.obs_names.is_unique:  # loaded with other cells than it was trained on
        return None
    trained = np.asarray(parts[0])
    place = pd.Index(held.obs_names[trained]).get_indexer(adata.obs_names)
    matches = np.flatnonzero(place >= 0)
    if not len(matches):
        return np.zeros(adata.n_obs, bool)
    # names such as AAACCTG-1 appear in several samples: the same cell has the same counts
    layer = _setup(model).get("layer")
    layer = layer if isinstance(layer, str) and layer in adata.layers else None
    genes = held.var_names.intersection(adata.var_names)
    theirs = _totals(held[held.obs_names[trained][place[matches]], genes], layer)
    same = np.zeros(adata.n_obs, bool)
    same[matches] = np.isclose(theirs, _totals(adata[matches, genes], layer), rtol=1e-5)
    return same


def trained_labels(model: Any, key: str) -> set[str] | None:
    """Labels of the training cells in a column of ``obs``; ``None`` if they are unknown."""
    held = getattr(model, "adata", None)
    if held is None or key not in held.obs.columns or trained_cells(model, held) is None:
        return None
    used = np.concatenate([part for part in (model.train_indices, model.validation_indices) if part is not None])
    return set(held.obs[key].iloc[used].dropna().astype(str))


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
    new = sorted(set(check.get_obs_column(adata, key).astype(str)) - set(known))
    if new:
        msg = (
            f"The decoder was trained with batch_key={key!r} on {listing(known)} and does not know "
            f"{listing(new)}. Train without {key!r} as batch (or with a batch that held-out donors share), or "
            f"decode all cells as if they were of one known batch: decode_as={known[0]!r}."
        )
        raise ValueError(msg)
    return adata


def _from_network(model: Any, adata: AnnData, *, n_draws: int, seed: int, also: Scorer | None) -> ElboTerms:
    """Reconstruction and divergence, batch by batch; without a posterior, one pass is enough."""
    import torch

    module = model.module
    parts: dict[str, list[np.ndarray]] = {"mean": [], "variance": [], "reconstruction": [], "prior": [], "also": []}
    start = 0
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), batches(model, adata) as loader:
        torch.manual_seed(seed % 2**63)
        for tensors in loader:
            rows = slice(start, start + len(tensors[_COUNTS]))
            start = rows.stop
            sums: dict[str, Any] = defaultdict(float)
            for _ in range(n_draws):
                inferred = module.inference(**module._get_inference_input(tensors))
                given = module.generative(**module._get_generative_input(tensors, inferred))
                sums["reconstruction"] -= given["px"].log_prob(tensors[_COUNTS]).sum(-1).double()
                if also is not None:
                    sums["also"] += also(given["px"], rows).double()
                if _POSTERIOR not in inferred:
                    break
                lost = module.loss(tensors, inferred, given)
                sums["prior"] += (_summed(lost.reconstruction_loss) + _summed(lost.kl_local)).double()
            n, block = 1, {"mean": inferred["z"]}
            if _POSTERIOR in inferred:
                # the whole objective minus the reconstruction: models divide it in different ways
                sums["prior"] -= sums["reconstruction"]
                n, block = n_draws, {"mean": inferred[_POSTERIOR].loc, "variance": inferred[_POSTERIOR].scale.square()}
            for name, value in (block | {name: total / n for name, total in sums.items()}).items():
                parts[name].append(value.double().cpu().numpy())
    joined = {name: np.concatenate(values) if values else None for name, values in parts.items()}
    return ElboTerms(**joined)  # type: ignore[arg-type]


@contextmanager
def batches(model: Any, adata: AnnData) -> Iterator[Iterator[dict[str, torch.Tensor]]]:
    """Cells on the device of the network, in their order, without side effects on the model.

    The network is in evaluation mode, and the model, which keeps every AnnData that it was given, forgets this one.
    """
    import torch

    managers = model._per_instance_manager_store.setdefault(model.id, {})
    known, device = set(managers), model.module.device
    try:
        loader = model._make_data_loader(adata=model._validate_anndata(adata), batch_size=_ROWS, shuffle=False)
        with torch.inference_mode(), evaluating(model.module):
            yield ({name: value.to(device) for name, value in t.items() if value is not None} for t in loader)
    finally:
        for name in set(managers) - known:
            del managers[name]


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
