"""Many autoencoders with different settings on one embedding."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sparsesc._logging import info, progress
from sparsesc._random import as_generator, several_seeds
from sparsesc.door._checks import check_adata, get_rep

from ._fit_sae import held_out_cells, held_out_metrics, resolve_device
from ._settings import checked_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

    from sparsesc.nn import SparseAutoencoder, TrainConfig

_VARIED = ("architecture", "n_features", "k", "penalty")


def sweep(
    adata: AnnData | MuData,
    *,
    use_rep: str = "X_scVI",
    n_features: int | Sequence[int] | None = None,
    k: int | Sequence[int] | None = None,
    architecture: str | Sequence[str] = "matryoshka",
    penalty: float | Sequence[float] | None = None,
    init: str = "kmeans",
    noise: float = 0.6,
    tie_strength: float = 15.0,
    resample_dead: bool = False,
    whiten: bool = False,
    max_steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    patience: int | None = 50,
    precision: str = "auto",
    batch_key: str | None = None,
    validation: float = 0.1,
    device: str = "auto",
    rng: int | Sequence[int] = 0,
    models: bool = False,
    progress_bar: bool | None = None,
) -> pd.DataFrame:
    """Fit an autoencoder for every combination of settings, side by side, and compare them on held-out cells.

    Each is the one that :func:`fit_sae` gives with the settings of its row, bit for bit. To keep one, call
    :func:`fit_sae` with them, or ask for the `models` and pass one to :func:`apply_sae`.

    Parameters
    ----------
    adata
        Cells with an embedding in ``obsm``; stays as it is.
    use_rep
        The embedding, as in :func:`fit_sae`.
    n_features, k, architecture, penalty
        One value or several of each; all combinations are fitted. ``None`` is the default of :func:`fit_sae`.
    init, noise, tie_strength, resample_dead, whiten, max_steps, batch_size, lr, patience, precision
        Settings of all of them, as in :func:`fit_sae`.
    batch_key, validation
        Which cells are held out, as in :func:`fit_sae`: others for every seed.
    device
        As in :func:`fit_sae`. On the CPU narrow embeddings are trained many at a time.
    rng
        One seed or several: every combination is fitted with each of them.
    models
        Add the autoencoders themselves in a column ``model``.
    progress_bar
        Show progress over all fits. Default: unless ``sc.settings.verbosity`` is 0.

    Returns
    -------
    One row a fit: ``architecture``, ``n_features``, ``k``, ``penalty``, ``rng``; on held-out cells ``fvu``,
    ``explained_variance``, ``l0``, ``cosine``, ``shrinkage``; ``dead_fraction``, the share of features that are active
    in no cell; ``n_steps`` and ``seconds`` of training (many share the processor, so these do not add up). With
    several seeds ``stability`` is the mean cosine of a fit's features with their partners in the fits of the same
    settings from other seeds, and ``stability_random`` that of random directions in their place.
    After Ctrl-C the rows that were finished.

    Raises
    ------
    KeyError, TypeError
        As in :func:`fit_sae`.
    ValueError
        As in :func:`fit_sae`, if any combination is impossible: before any is fitted.

    Notes
    -----
    Reconstruction improves with every feature and every active place, so the lowest FVU is no reason to choose a
    width: choose by what the features are for (:func:`compare_representations`, :func:`stability`), and look at this
    table for what costs nothing.

    References
    ----------
    Gao et al. 2024, Scaling and evaluating sparse autoencoders, for the trade of FVU against L0.

    Examples
    --------
    >>> import scanpy as sc, sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> table = ssc.tl.sweep(adata, use_rep="X_pca", k=[4, 8], rng=[0, 1], max_steps=100)
    >>> table[["k", "rng", "fvu", "l0", "stability"]].shape
    (4, 5)
    """
    from sparsesc.nn import train_many

    check_adata(adata)
    X = get_rep(adata, use_rep)
    seeds = several_seeds(rng)
    values = [_several(architecture), _several(n_features), _several(k), _several(penalty)]
    rows: list[dict[str, Any]] = []
    configs: list[TrainConfig] = []
    for *setting, seed in product(*values, seeds):
        asked = dict(zip(_VARIED, setting, strict=True))
        shared: dict[str, Any] = {
            "matryoshka_widths": None,
            "full_width_weight": None,
            "init": init,
            "noise": noise,
            "tie_strength": tie_strength,
            "resample_dead": resample_dead,
        }
        shared |= {"whiten": whiten, "max_steps": max_steps, "batch_size": batch_size, "lr": lr}
        config = checked_config(X.shape, **asked, **shared, patience=patience, precision=precision)
        if (config, seed) in zip(configs, (row["rng"] for row in rows), strict=True):
            continue  # a default beside its own value: twice the same fit would look like a stable one
        configs.append(config)
        found = {name: getattr(config, name) for name in _VARIED}
        rows.append(found | {"penalty": np.nan if config.penalty is None else config.penalty, "rng": seed})
    generators = [as_generator(row["rng"]) for row in rows]
    held_out = [held_out_cells(adata, len(X), validation, batch_key, generator) for generator in generators]
    fewest = len(X) - max(int(aside.sum()) for aside in held_out)
    if fewest < max(config.k for config in configs):
        msg = f"Only {fewest} cells are left for training. Lower validation."
        raise ValueError(msg)
    devices = [
        resolve_device(device, len(X) - int(aside.sum()), config)
        for aside, config in zip(held_out, configs, strict=True)
    ]

    done = np.zeros(len(rows))
    with progress(total=100 * len(rows), desc=f"Fitting {len(rows)} autoencoders", enabled=progress_bar) as bar:

        def on_epoch(i: int, row: dict[str, float], share: float) -> None:
            done[i] = share
            bar.update(int(100 * done.sum()) - bar.n)

        results = train_many(X, configs, rngs=generators, held_out=held_out, device=devices, on_epoch=on_epoch)
    # After Ctrl-C only what was fitted to the end is compared: a fit cut short would look bad for its settings.
    finished = {i: result for i, result in enumerate(results) if result is not None and not result.interrupted}
    kept: dict[int, SparseAutoencoder] = {}
    for i, result in finished.items():
        row, aside = rows[i], held_out[i]
        codes = result.sae.encode(X)
        result.sae.metadata["use_rep"] = use_rep
        row |= held_out_metrics(result.sae, codes, X[aside] if aside.any() else X)
        row |= {"n_steps": result.n_steps, "seconds": float(result.history["seconds"].sum())}
        alive = np.bincount(codes.indices, minlength=result.sae.n_features) > 0
        kept[i] = result.sae
        row["_rows"] = result.sae.W_dec[alive]
    table = pd.DataFrame([rows[i] for i in finished])
    if len(seeds) > 1 and len(table):
        table = table.join(_stability(table))
    table = table.drop(columns="_rows", errors="ignore")
    if models:
        table["model"] = [kept[i] for i in finished]
    info(f"Fitted {len(table)} of {len(rows)} autoencoders to {use_rep!r}.")
    return table


def _several(value: Any) -> list[Any]:
    """A list of what was asked for; one value, or none, is a list of one."""
    if value is None or isinstance(value, str) or not isinstance(value, Iterable):
        return [value]
    values = list(dict.fromkeys(value))
    if not values:
        msg = "An empty list leaves nothing to fit. Give at least one value for each setting, or leave it out."
        raise ValueError(msg)
    return values


def _stability(table: pd.DataFrame) -> pd.DataFrame:
    """For every fit, how well its features are found in the fits with other seeds, and random ones in their place."""
    from sparsesc.stats import dictionary_stability

    found = pd.DataFrame(np.nan, index=table.index, columns=["stability", "stability_random"])
    for _, group in table.groupby(list(_VARIED), dropna=False):
        dictionaries = list(group["_rows"])
        if len(group) < 2 or min(len(rows) for rows in dictionaries) == 0:
            continue
        for place, i in enumerate(group.index):
            own_first = [dictionaries[place], *dictionaries[:place], *dictionaries[place + 1 :]]
            score = dictionary_stability(own_first, rng=np.random.default_rng(0))
            found.loc[i] = [float(np.mean(score.features)), float(np.mean(score.random))]
    return found
