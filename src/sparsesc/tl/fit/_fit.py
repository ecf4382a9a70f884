"""One fit: settings, cells and a generator in; the autoencoder, its codes and what it is like on held-out cells out.

Whoever fits (:func:`fit_sae`, :func:`fit_crosscoder`, :func:`sweep`, :func:`stability`) goes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc._train_config import TrainConfig
from sparsesc._values import listing
from sparsesc.door import _keys
from sparsesc.door._checks import get_obs_column
from sparsesc.door._depth import log_depth
from sparsesc.door._slots import uns_entry

from ._reference import facts_of

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc.nn import SparseAutoencoder, TrainResult

type OnEpoch = Callable[[int, dict[str, float], float], None]


@dataclass(frozen=True)
class Fit:
    """One fitted autoencoder, and what belongs to it."""

    sae: SparseAutoencoder
    codes: sparse.csr_matrix
    """Of all cells, those of training and those held out."""
    metrics: dict[str, float]
    """On held-out cells, or on all where none are; ``dead_fraction`` counts features active in no cell at all."""
    history: pd.DataFrame
    """One row an epoch."""
    config: TrainConfig
    """Settings as used, every default filled in."""
    held_out: np.ndarray
    """Cells that training did not see, (n,) bool."""
    device: str
    n_steps: int
    best_epoch: int
    interrupted: bool
    """Whether Ctrl-C ended it: then this is the best state so far."""

    @property
    def alive(self) -> np.ndarray:
        """Features that are active in some cell, (F,) bool."""
        return np.bincount(self.codes.indices, minlength=self.sae.n_features) > 0

    def params(self) -> dict[str, Any]:
        """What was used, as it is stored."""
        sizes = {"n_obs": len(self.held_out), "n_validation": int(self.held_out.sum())}
        end = {"n_steps": self.n_steps, "best_epoch": self.best_epoch, "interrupted": self.interrupted}
        return sizes | self.config.stored() | end | {"device": self.device}

    def entry(self, key: str, X: np.ndarray, adata: AnnData | MuData, params: Mapping[str, Any]) -> dict[str, Any]:
        """The entry of ``uns`` for the cells of `adata`, of which ``X`` were fitted."""
        options = self.params() | dict(params)
        return uns_entry(key, self.codes, self.sae, options, self.metrics, depth=log_depth(adata)) | {
            _keys.HISTORY: self.history,
            _keys.VALIDATION: np.array(adata.obs_names[self.held_out], dtype=object),
            _keys.REFERENCE: facts_of(self.sae, X, self.codes, self.held_out),
        }


def fit_cells(
    X: np.ndarray,
    config: TrainConfig,
    held_out: np.ndarray,
    rng: np.random.Generator,
    *,
    device: str = "auto",
    on_epoch: Callable[[dict[str, float], float], None] | None = None,
) -> Fit:
    """Fit one autoencoder to cells ``X`` (n, d), of which some are held out, (n,) bool.

    Raises
    ------
    ValueError
        If too few cells are left for training, all are the same point, or the device does not exist.
    KeyboardInterrupt
        If it was stopped before there was any state to keep.
    """
    report: OnEpoch | None = None if on_epoch is None else lambda _, row, share: on_epoch(row, share)
    for _, fit in fit_many(X, [config], [held_out], [rng], device=device, on_epoch=report):
        return fit
    raise KeyboardInterrupt


def fit_many(
    X: np.ndarray,
    configs: Sequence[TrainConfig],
    held_out: Sequence[np.ndarray],
    rngs: Sequence[np.random.Generator],
    *,
    training: Sequence[np.ndarray] | None = None,
    device: str = "auto",
    on_epoch: OnEpoch | None = None,
) -> Iterator[tuple[int, Fit]]:
    """:func:`fit_cells` many times on the same cells, side by side, with the same bits as one by one.

    `training` says which cells each fit trains on; all that are not held out by default. After Ctrl-C, the fits that
    had not begun are missing. Codes are computed as each fit is handed over.
    """
    from sparsesc.nn import train_many

    used = [~aside for aside in held_out] if training is None else list(training)
    for config, rows in zip(configs, used, strict=True):
        if rows.sum() < config.k:
            msg = f"Only {rows.sum()} cells are left for training. Lower validation."
            raise ValueError(msg)
    devices = [resolve_device(device, int(rows.sum()), c) for rows, c in zip(used, configs, strict=True)]
    results = train_many(X, configs, rngs=rngs, held_out=held_out, training=used, device=devices, on_epoch=on_epoch)
    for i, result in enumerate(results):
        if result is not None:
            yield i, _judge(result, X, held_out[i], devices[i])


def _judge(result: TrainResult, X: np.ndarray, held_out: np.ndarray, device: str) -> Fit:
    from sparsesc.nn._metrics import active_features, fit_metrics

    codes = result.sae.encode(X)
    metrics = fit_metrics(result.sae, X[held_out] if held_out.any() else X)
    metrics["dead_fraction"] = float((~active_features(codes)).mean())
    return Fit(
        sae=result.sae,
        codes=codes,
        metrics=metrics,
        history=pd.DataFrame(result.history),
        config=result.config,
        held_out=held_out,
        device=device,
        n_steps=result.n_steps,
        best_epoch=result.best_epoch,
        interrupted=result.interrupted,
    )


def held_out_cells(
    adata: AnnData | MuData, n: int, share: float, groups_key: str | None, rng: np.random.Generator
) -> np.ndarray:
    """Which cells are held out, (n,) bool: drawn one by one, or in whole groups of a column of ``obs``.

    Raises
    ------
    ValueError
        If the share is not in [0, 0.5], or there are fewer than two groups.
    KeyError
        If there is no such column.
    """
    if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 <= share <= 0.5:
        msg = f"validation must be a share of the cells between 0 and 0.5, found {share!r}."
        raise ValueError(msg)
    held_out = np.zeros(n, bool)
    wanted = max(2, round(share * n))
    if groups_key is None:
        if share > 0:
            held_out[rng.permutation(n)[:wanted]] = True
        return held_out
    groups = get_obs_column(adata, groups_key)
    labels = groups.astype("object").where(groups.notna(), "missing").astype(str).to_numpy()
    names, sizes = np.unique(labels, return_counts=True)
    if len(names) < 2:
        msg = f"Validation by groups needs at least two of them; adata.obs[{groups_key!r}] has only {listing(names)}."
        raise ValueError(msg)
    if share > 0:
        # Groups in random order until the share is reached; the largest group never leaves the training.
        order = [i for i in rng.permutation(len(names)) if i != sizes.argmax()]
        reached = np.cumsum(sizes[order])
        take = order[: int(np.searchsorted(reached, wanted)) + 1]
        held_out = np.isin(labels, names[take])
    return held_out


def resolve_device(device: str, n_cells: int, config: TrainConfig) -> str:
    """The torch device to train on; ``"auto"`` is a GPU only when the work is large enough to pay for it.

    Raises
    ------
    ValueError
        If the device does not exist here.
    """
    import torch

    if device == "auto":
        large = n_cells * config.n_features > 10**8
        return "cuda" if large and torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device)
        torch.empty(1, device=kind)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        msg = f"device={device!r} cannot be used here ({reason}). Use 'auto' or 'cpu'."
        raise ValueError(msg) from error
    return str(kind)
