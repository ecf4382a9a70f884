"""What is known of the cells that an autoencoder was fitted to, for comparison with cells it is applied to.

It is kept small, so that it travels with the model: a few numbers, two for each feature, and a table of quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sparsesc.door import _keys
from sparsesc.door._checks import get_codes, get_feature_table
from sparsesc.door._slots import feature_table

from ._blocks import get_embedding

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc.nn import SparseAutoencoder

N_QUANTILES = 1000
UNKNOWN, HELD_OUT, TRAINED, CONTROL = "unknown", "held out", "trained on", "control"


@dataclass(frozen=True)
class Reference:
    """Cells that others are compared with."""

    facts: Mapping[str, Any]
    """What :func:`facts_of` gives; without an entry for what is not known."""
    kind: str
    """Which cells the residuals are of."""
    codes: sparse.csr_matrix | None = None
    """Of all its cells, when they are at hand."""
    cells: AnnData | MuData | None = None
    """Where the columns of ``obs`` of these cells are."""

    def number(self, name: str) -> float:
        """One fact, NaN when it is not known."""
        return float(self.facts.get(name, np.nan))

    def per_feature(self, name: str, n_features: int) -> np.ndarray:
        """One fact a feature, NaN when it is not known."""
        return np.array(self.facts.get(name, np.full(n_features, np.nan)), dtype=np.float64)

    @property
    def residual(self) -> np.ndarray:
        """Quantiles of the residuals of cells that the fit has not seen, ascending; empty when they are not known."""
        unseen = self.kind in (HELD_OUT, CONTROL)
        return np.asarray(self.facts.get("residual", ()) if unseen else (), dtype=np.float32)


def residual_norms(sae: SparseAutoencoder, X: np.ndarray, codes: sparse.csr_matrix) -> np.ndarray:
    """Length of what the features leave over of each cell, (n,) float32, in units of the embedding."""
    return np.linalg.norm(X - sae.decode(codes), axis=1)


def facts_of(sae: SparseAutoencoder, X: np.ndarray, codes: sparse.csr_matrix, unseen: np.ndarray) -> dict[str, Any]:
    """What later comparisons need of cells (n, d), of which the fit has not seen some.

    ``n_obs``, ``density``, ``mean_active`` and ``on_threshold`` (F,) are of all cells. ``n_held_out``, ``l0``,
    ``variance`` (mean squared distance from the mean cell), ``squared_residual`` (mean) and ``residual`` (at most 1,000
    quantiles of its length) are of the unseen cells, or of all where there are none (``n_held_out`` is 0 then).
    """
    table = feature_table(codes, [str(i) for i in range(sae.n_features)])
    n_held_out = int(unseen.sum())
    if n_held_out:
        X, codes = X[unseen], codes[unseen]
    residual = np.sort(residual_norms(sae, X, codes))
    return {
        "n_obs": len(unseen),
        "n_held_out": n_held_out,
        "l0": codes.nnz / len(X),
        "variance": float(np.square(X - X.mean(0, dtype=np.float64)).sum() / len(X)),
        "squared_residual": float(np.square(residual, dtype=np.float64).mean()),
        "residual": _thin(residual),
        "density": table["density"].to_numpy(np.float32),
        "mean_active": table["mean_active"].to_numpy(np.float32),
        "on_threshold": table["on_threshold"].to_numpy(np.float64),
    }


def reference_of(source: Any, sae: SparseAutoencoder, key: str) -> Reference:
    """The reference behind an autoencoder: its stored facts, or what its cells still tell."""
    if type(source).__name__ not in ("AnnData", "MuData"):
        return _known(sae.metadata.get(_keys.REFERENCE, {}))
    slot = source.uns[key]
    if bool(slot[_keys.PARAMS].get("applied", False)):  # these cells are not the ones of the fit
        return _known(slot.get(_keys.REFERENCE, {}))
    known = _known(slot.get(_keys.REFERENCE) or _recovered(source, sae, key))
    try:
        codes = get_codes(source, key)
    except KeyError:
        return known
    return Reference(known.facts, known.kind, codes, source)


def control_reference(control: AnnData | MuData, sae: SparseAutoencoder, use_rep: str | None) -> Reference:
    """A reference of cells that the fit has not seen."""
    X = get_embedding(control, sae, use_rep, name="control").X
    codes = sae.encode(X)
    return Reference(facts_of(sae, X, codes, np.ones(len(X), bool)), CONTROL, codes, control)


def _known(facts: Mapping[str, Any]) -> Reference:
    if "residual" not in facts:
        return Reference(facts, UNKNOWN)
    return Reference(facts, HELD_OUT if int(facts["n_held_out"]) else TRAINED)


def _recovered(adata: AnnData | MuData, sae: SparseAutoencoder, key: str) -> dict[str, Any]:
    """Facts of a fit that stored none: from its cells when their embedding is there, else from its tables."""
    slot = adata.uns[key]
    try:
        X = get_embedding(adata, sae, None).X
    except (KeyError, ValueError):
        X = None
    held_out = np.asarray(slot.get(_keys.VALIDATION, ()), dtype=str)
    unseen = np.asarray(adata.obs_names.isin(held_out))
    if X is not None and unseen.sum() == len(held_out) and len(X) == int(slot[_keys.PARAMS].get("n_obs", len(X))):
        return facts_of(sae, X, sae.encode(X), unseen)
    table = get_feature_table(adata, key)
    facts = {
        name: table[name].to_numpy(np.float64) for name in ("density", "mean_active", "on_threshold") if name in table
    }
    return facts | {name: float(slot[_keys.METRICS][name]) for name in ("fvu", "l0") if name in slot[_keys.METRICS]}


def _thin(ascending: np.ndarray) -> np.ndarray:
    """At most :data:`N_QUANTILES` of the values, evenly spread over them."""
    if len(ascending) <= N_QUANTILES:
        return ascending.astype(np.float32)
    middle = (np.arange(N_QUANTILES) + 0.5) / N_QUANTILES
    return np.quantile(ascending, middle).astype(np.float32)
