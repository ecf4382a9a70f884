"""Many autoencoders with different settings on one embedding."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sparsesc._logging import info, progress
from sparsesc._random import as_generator, several_seeds
from sparsesc._train_config import TrainConfig
from sparsesc.door._checks import check_adata, get_rep

from ._fit import fit_many, held_out_cells
from ._options import training_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

_ALWAYS_SHOWN = ("architecture", "n_features", "k", "penalty")


@training_options(after="use_rep", short=True)
def sweep(
    adata: AnnData | MuData,
    *,
    use_rep: str = "X_scVI",
    validation_groups: str | None = None,
    validation: float = 0.1,
    device: str = "auto",
    rng: int | Sequence[int] = 0,
    models: bool = False,
    progress_bar: bool | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Fit an autoencoder for every combination of settings, side by side, and compare them on held-out cells.

    Any training option can be given as a list of values; all combinations are fitted (for `matryoshka_widths`: a list
    of lists). Each fit is the one that :func:`fit_sae` gives with the settings of its row, bit for bit. To keep one,
    call
    :func:`fit_sae` with them, or ask for the `models` and pass one to :func:`apply_sae`.

    Parameters
    ----------
    adata
        Cells with an embedding in ``obsm``; stays as it is.
    use_rep
        The embedding, as in :func:`fit_sae`.
    {training_options}
    validation_groups, validation
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
    One row a fit: ``architecture``, ``n_features``, ``k``, ``penalty`` and the other
    options that vary, ``rng``; on held-out cells ``fvu``,
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

    See Also
    --------
    sparsesc.tl.fit_sae : Fit one of them.
    sparsesc.tl.compare_representations : Compare codes by labels.
    sparsesc.pl.sweep : Plot the table.

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
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> table = ssc.tl.sweep(adata, use_rep="X_pca", k=[4, 8], rng=[0, 1], max_steps=100)
    >>> table[["k", "rng", "fvu", "l0", "stability"]].shape
    (4, 5)
    """
    check_adata(adata)
    X = get_rep(adata, use_rep)
    seeds = several_seeds(rng)
    values = {name: _several(value, nested=name == "matryoshka_widths") for name, value in options.items()}
    shown = [*_ALWAYS_SHOWN, *(name for name, v in values.items() if len(v) > 1 and name not in _ALWAYS_SHOWN)]
    rows: list[dict[str, Any]] = []
    configs: list[TrainConfig] = []
    # The options that are shown vary slowest, in the order of the table.
    order = [*(name for name in shown if name in values), *(name for name in values if name not in shown)]
    for *setting, seed in product(*(values[name] for name in order), seeds):
        config = TrainConfig.of(dict(zip(order, setting, strict=True))).sized(*X.shape)
        if (config, seed) in zip(configs, (row["rng"] for row in rows), strict=True):
            continue  # a default beside the same value: twice the same fit would look like a stable one
        configs.append(config)
        row = {name: getattr(config, name) for name in shown}
        rows.append(row | {"penalty": np.nan if config.penalty is None else config.penalty, "rng": seed})
    generators = [as_generator(row["rng"]) for row in rows]
    held_out = [held_out_cells(adata, len(X), validation, validation_groups, generator) for generator in generators]

    done = np.zeros(len(rows))
    with progress(total=100 * len(rows), desc=f"Fitting {len(rows)} autoencoders", enabled=progress_bar) as bar:

        def on_epoch(i: int, row: dict[str, float], share: float) -> None:
            done[i] = share
            bar.update(int(100 * done.sum()) - bar.n)

        # After Ctrl-C only what was fitted to the end is compared: a fit cut short would look bad for its settings.
        finished = []
        for i, fit in fit_many(X, configs, held_out, generators, device=device, on_epoch=on_epoch):
            if fit.interrupted:
                continue
            fit.sae.metadata["use_rep"] = use_rep
            end = {"n_steps": fit.n_steps, "seconds": float(fit.history["seconds"].sum())}
            finished.append(rows[i] | fit.metrics | end)
            finished[-1] |= {"_rows": fit.sae.W_dec[fit.alive], "model": fit.sae}
    table = pd.DataFrame(finished)
    if len(seeds) > 1 and len(table):
        table = table.join(_stability(table, shown))
    table = table.drop(columns=["_rows"] if models else ["_rows", "model"], errors="ignore")
    if models and len(table):
        table["model"] = table.pop("model")
    info(f"Fitted {len(table)} of {len(rows)} autoencoders to {use_rep!r}.")
    return table


def _several(value: Any, *, nested: bool) -> list[Any]:
    """The values to try; one value, or none, is a list of one. With `nested`, a value is itself a sequence."""
    if value is None or isinstance(value, str) or not isinstance(value, Iterable):
        return [value]
    values = list(value)
    if nested:
        several = any(isinstance(v, Iterable) for v in values)
        return [v if v is None else tuple(v) for v in values] if several else [tuple(values)]
    if not values:
        msg = "An empty list leaves nothing to fit. Give at least one value for each setting, or leave it out."
        raise ValueError(msg)
    return list(dict.fromkeys(values))


def _stability(table: pd.DataFrame, settings: list[str]) -> pd.DataFrame:
    """How well the features of every fit match those of fits with other seeds, and random directions in their place."""
    from sparsesc.stats import dictionary_stability

    scores = pd.DataFrame(np.nan, index=table.index, columns=["stability", "stability_random"])
    for _, group in table.groupby(settings, dropna=False):
        dictionaries = list(group["_rows"])
        if len(group) < 2 or min(len(rows) for rows in dictionaries) == 0:
            continue
        for place, i in enumerate(group.index):
            in_order = [dictionaries[place], *dictionaries[:place], *dictionaries[place + 1 :]]
            score = dictionary_stability(in_order, rng=np.random.default_rng(0))
            scores.loc[i] = [float(np.mean(score.features)), float(np.mean(score.random))]
    return scores
