"""Do features come back when the autoencoder is fitted again?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sparsesc._logging import hint, info
from sparsesc._random import RNGLike, SeedLike, as_generator, describe
from sparsesc._values import check_positive_int, listing
from sparsesc.door import _keys
from sparsesc.door._checks import get_feature_table, get_rep, get_sae_slot, writable

from ._fit_sae import resolve_device
from ._settings import FEWEST_CELLS, REQUIRED, restored_config

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc.nn import SparseAutoencoder, TrainConfig


def stability(
    adata: AnnData | MuData,
    *,
    n_fits: int = 5,
    key: str = "sae",
    subsample: float | None = None,
    device: str = "auto",
    rng: SeedLike | RNGLike | None = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Fit the autoencoder again with other seeds, and score how well each feature is found again.

    Every refit has the settings, the embedding and the held-out cells of the stored one; the start and the order of the
    cells are new. Features that are alive are matched one to one (Hungarian) by the cosine of their decoder rows.

    Parameters
    ----------
    adata
        The cells that the autoencoder was fitted to.
    n_fits
        Refits, beside the stored fit.
    key
        Name of the sparse autoencoder.
    subsample
        Share of the training cells that each refit gets, drawn anew for each. By default all get all.
    device
        ``"auto"`` (a GPU when there is one and the problem is large), ``"cpu"``, or a torch device.
    rng
        Seed or generator. Each refit has a generator of its own, seeded by the next 32-bit number of `rng`; these
        seeds are kept.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy. Writes

    `adata.uns[key]["features"]["stability"]`
        Mean over the refits of the cosine with the matched feature. 0 counts where a refit has fewer features than
        would be needed; NaN for dead features.
    `adata.uns[key]["features"]["stability_random"]`
        The same for random directions in place of the refits' features: what chance gives, as the fit's start is one.
    `adata.uns[key]["stability"]`
        ``mean``, ``random`` and ``shaped`` (means over features; ``shaped`` are random directions with the second
        moments of the refits' features, a stricter baseline); ``pairs``, mean cosines of matched features between all
        fits, the stored one first, (n_fits + 1, n_fits + 1); ``fits``, one row a fit: ``seed`` (-1 for the stored
        one), ``n_alive``, ``fvu``, ``l0`` (on held-out cells); ``params``.

    Raises
    ------
    KeyError
        If there is no such sparse autoencoder, or its embedding is gone.
    ValueError
        If the autoencoder was fitted to other cells, or all of its features are dead, or options are out of range.

    Notes
    -----
    Cosines of embeddings with few dimensions are high by chance: read ``stability`` beside its baselines. It says that
    training ends in the same place, not that the place means something, and not that other cells would lead there.
    ``subsample=0.5`` is the harder and more honest question, above all where fits start at the same place: at k-means
    centres, the default, and as ``"archetypal"`` codes do. A feature that is not found again may be one of several
    equally good descriptions.

    References
    ----------
    Fel et al. 2025, Archetypal SAE: adaptive and stable dictionary learning for concept extraction in large vision
    models; Paulo and Belrose 2025, Sparse autoencoders trained on the same data learn different features.

    Examples
    --------
    >>> import scanpy as sc, sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.stability(adata, n_fits=2)
    """
    from sparsesc.nn._metrics import fit_metrics
    from sparsesc.stats import dictionary_stability

    n_fits = check_positive_int(n_fits, name="n_fits")
    slot = get_sae_slot(adata, key)
    config, use_rep = _config(slot, key)
    X, held_out = _cells(adata, slot, key, use_rep)
    train_cells = np.flatnonzero(~held_out)
    n_drawn = _n_drawn(subsample, len(train_cells), config)
    table = get_feature_table(adata, key)
    alive = ~table["dead"].to_numpy(dtype=bool)
    if not alive.any():
        msg = f"All features of {key!r} are dead: there is nothing to find again. Fit again with other settings."
        raise ValueError(msg)
    adata = writable(adata, copy=copy)

    generator = as_generator(rng)
    seeds = generator.integers(2**32, size=n_fits)
    draws = [np.random.default_rng(seed) for seed in seeds]
    X_train = X[train_cells]
    parts = [X_train[np.sort(draw.permutation(len(X_train))[:n_drawn])] if subsample else X_train for draw in draws]
    X_validation = X[held_out] if held_out.any() else None
    used = resolve_device(device, n_drawn, config)
    refits = _refit(parts, config, X_validation, draws, used)

    judged = X if X_validation is None else X_validation
    stored = get_sae_slot(adata, key)[_keys.METRICS]
    rows = [{"seed": -1, "n_alive": int(alive.sum()), "fvu": float(stored["fvu"]), "l0": float(stored["l0"])}]
    dictionaries = [np.asarray(slot[_keys.WEIGHTS]["W_dec"])[alive]]
    for seed, sae in zip(seeds, refits, strict=True):
        fires = np.bincount(sae.encode(X).indices, minlength=config.n_features) > 0
        metrics = fit_metrics(sae, judged)
        rows.append({"seed": int(seed), "n_alive": int(fires.sum()), "fvu": metrics["fvu"], "l0": metrics["l0"]})
        dictionaries.append(sae.W_dec[fires])
    # A generator of its own: the stored fit's start may have been drawn from the very stream of `rng`.
    found = dictionary_stability(dictionaries, rng=np.random.default_rng(generator.integers(2**63)))

    for name, values in (("stability", found.features), ("stability_random", found.random)):
        column = np.full(len(table), np.nan)
        column[alive] = values
        table[name] = column
    summary = {
        "mean": float(found.features.mean()),
        "random": float(found.random.mean()),
        "shaped": float(found.shaped.mean()),
        "pairs": found.pairs,
        "fits": pd.DataFrame(rows),
        "params": {"n_fits": n_fits, "rng": describe(rng), "subsample": float(subsample or 1.0), "device": used},
    }
    adata.uns[key][_keys.FEATURES] = table
    adata.uns[key][_keys.STABILITY] = summary
    info(
        f"Found again in {n_fits} refits: mean cosine {summary['mean']:.2f} "
        f"(random directions {summary['random']:.2f}, shaped like the dictionary {summary['shaped']:.2f})."
    )
    hint(f"added 'stability' to adata.uns[{key!r}]['features'] and adata.uns[{key!r}]['stability'].")
    return adata if copy else None


def _refit(
    cells: list[np.ndarray],
    config: TrainConfig,
    X_validation: np.ndarray | None,
    rngs: list[np.random.Generator],
    device: str,
) -> list[SparseAutoencoder]:
    """One autoencoder for each generator; on the same cells all at once.

    Raises
    ------
    KeyboardInterrupt
        If a fit was stopped: half a training says nothing about stability.
    """
    from sparsesc.nn import TrainResult, train, train_many

    results: list[TrainResult | None]
    if all(part is cells[0] for part in cells):
        configs = [config] * len(rngs)
        results = train_many(cells[0], configs, rngs=rngs, X_validation=X_validation, device=device)
    else:
        results = [
            train(part, config, X_validation=X_validation, rng=rng, device=device)
            for part, rng in zip(cells, rngs, strict=True)
        ]
    finished = [result for result in results if result is not None and not result.interrupted]
    if len(finished) < len(rngs):
        raise KeyboardInterrupt
    return [result.sae for result in finished]


def _config(slot: Mapping[str, Any], key: str) -> tuple[TrainConfig, str]:
    """What the stored autoencoder was fitted with, and to which embedding."""
    params = slot[_keys.PARAMS]
    missing = [name for name in (*REQUIRED, "use_rep") if name not in params]
    if missing or bool(params.get("applied", False)):
        msg = (
            f"{key!r} was not fitted here: its settings are not known"
            f"{f' ({listing(missing)})' if missing else ''}. Run ssc.tl.stability on the cells of ssc.tl.fit_sae."
        )
        raise ValueError(msg)
    return restored_config(params), str(params["use_rep"])


def _cells(adata: AnnData | MuData, slot: Mapping[str, Any], key: str, use_rep: str) -> tuple[np.ndarray, np.ndarray]:
    """The embedding, and which cells the stored fit held out."""
    X = get_rep(adata, use_rep)
    held_out = np.asarray(adata.obs_names.isin(np.asarray(slot[_keys.VALIDATION]).astype(str)))
    expected = int(slot[_keys.PARAMS]["n_obs"]), int(slot[_keys.PARAMS]["n_validation"])
    found = len(X), int(held_out.sum())
    n_dimensions = len(slot[_keys.WEIGHTS]["W_enc"])
    if found != expected or X.shape[1] != n_dimensions:
        msg = (
            f"{key!r} was fitted to {expected[0]} cells x {n_dimensions} dimensions, {expected[1]} of the cells held "
            f"out; found {found[0]} x {X.shape[1]} and {found[1]}. Run ssc.tl.stability on the cells of ssc.tl.fit_sae."
        )
        raise ValueError(msg)
    return X, held_out


def _n_drawn(subsample: float | None, n_cells: int, config: TrainConfig) -> int:
    """Training cells of a refit."""
    if subsample is None:
        return n_cells
    if isinstance(subsample, bool) or not isinstance(subsample, int | float | np.number) or not 0 < subsample < 1:
        msg = f"subsample must be a share of the cells between 0 and 1, or None for all of them, found {subsample!r}."
        raise ValueError(msg)
    n_drawn = round(subsample * n_cells)
    if n_drawn < max(FEWEST_CELLS, config.n_features):
        msg = (
            f"subsample={subsample} leaves {n_drawn} cells for {config.n_features} features: "
            "that is too few to fit again. Raise it."
        )
        raise ValueError(msg)
    return n_drawn
