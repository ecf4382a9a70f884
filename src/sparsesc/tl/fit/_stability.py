"""Do features come back when the autoencoder is fitted again?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sparsesc._logging import hint, info
from sparsesc._random import RNGLike, SeedLike, as_generator, describe
from sparsesc._train_config import MIN_CELLS, TrainConfig
from sparsesc._values import check_positive_int, listing
from sparsesc.door import _keys
from sparsesc.door._checks import get_feature_table, get_rep, get_sae_slot
from sparsesc.door._slots import record

from ._fit import fit_many, resolve_device

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


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
    r"""Fit the autoencoder again with other seeds, and score how well each feature is recovered.

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
        Seed or generator. Each refit has its own generator, seeded by the next 32-bit number of `rng`; these
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
        one), ``n_alive``, ``fvu``, ``l0`` (on held-out cells).

    Raises
    ------
    KeyError
        If there is no such sparse autoencoder, or its embedding is gone.
    ValueError
        If the autoencoder was fitted to other cells, or all of its features are dead, or options are out of range.

    See Also
    --------
    sparsesc.stats.dictionary_stability : The score, on arrays.
    sparsesc.tl.sweep : Fit with several seeds and settings.
    sparsesc.get.stability : Read the result.

    Notes
    -----
    With :math:`d_i` a decoder row of the stored fit and :math:`d^{(s)}_j` those of refit :math:`s`, the score is

    .. math::

        \text{stability}_i = \frac{1}{S} \sum_{s=1}^{S} \cos\bigl(d_i, d^{(s)}_{\pi_s(i)}\bigr),

    where the matching :math:`\pi_s` maximizes the sum of the cosines.

    Cosines of embeddings with few dimensions are high by chance: read ``stability`` beside its baselines. It says that
    training ends in the same place, not that the place means something, and not that other cells would lead there.
    ``subsample=0.5`` is the harder and more honest question, above all where fits start at the same place: at k-means
    centers, the default, and as ``"archetypal"`` codes do. A feature that is not recovered may be one of several
    equally good descriptions.

    References
    ----------
    Fel et al. 2025, Archetypal SAE: adaptive and stable dictionary learning for concept extraction in large vision
    models; Paulo and Belrose 2025, Sparse autoencoders trained on the same data learn different features.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.stability(adata, n_fits=2)
    >>> adata.uns["sae"]["stability"]["pairs"].shape  # the stored fit and two more
    (3, 3)
    """
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
        msg = f"All features of {key!r} are dead: there is nothing to match. Fit again with other settings."
        raise ValueError(msg)

    generator = as_generator(rng)
    seeds = generator.integers(2**32, size=n_fits)
    draws = [np.random.default_rng(seed) for seed in seeds]
    training = [~held_out] * n_fits
    if subsample is not None:
        kept = [train_cells[draw.permutation(len(train_cells))[:n_drawn]] for draw in draws]
        training = [np.isin(np.arange(len(X)), rows) for rows in kept]
    stored = slot[_keys.METRICS]
    rows = [{"seed": -1, "n_alive": int(alive.sum()), "fvu": float(stored["fvu"]), "l0": float(stored["l0"])}]
    dictionaries = [np.asarray(slot[_keys.WEIGHTS]["W_dec"])[alive]]
    fits = fit_many(X, [config] * n_fits, [held_out] * n_fits, draws, training=training, device=device)
    for i, fit in fits:
        if not fit.interrupted:
            metrics = {name: fit.metrics[name] for name in ("fvu", "l0")}
            rows.append({"seed": int(seeds[i]), "n_alive": int(fit.alive.sum())} | metrics)
            dictionaries.append(fit.sae.W_dec[fit.alive])
    if len(rows) < n_fits + 1:  # half a training says nothing about stability
        raise KeyboardInterrupt
    # A new generator: the stored fit's start may have been drawn from the very stream of `rng`.
    match = dictionary_stability(dictionaries, rng=np.random.default_rng(generator.integers(2**63)))

    for name, values in (("stability", match.features), ("stability_random", match.random)):
        column = np.full(len(table), np.nan)
        column[alive] = values
        table[name] = column
    options = {"n_fits": n_fits, "rng": describe(rng), "subsample": float(subsample or 1.0)}
    summary = {
        "mean": float(match.features.mean()),
        "random": float(match.random.mean()),
        "shaped": float(match.shaped.mean()),
        "pairs": match.pairs,
        "fits": pd.DataFrame(rows),
    }
    options["device"] = resolve_device(device, n_drawn, config)
    tables = {_keys.FEATURES: table, _keys.STABILITY: summary}
    result = record(adata, key, "stability", tables, options, copy=copy)
    info(
        f"{n_fits} more fits: mean cosine of matched features {summary['mean']:.2f} "
        f"(random directions {summary['random']:.2f}, shaped like the dictionary {summary['shaped']:.2f})."
    )
    hint(f"added 'stability' to adata.uns[{key!r}]['features'] and adata.uns[{key!r}]['stability'].")
    return result


def _config(slot: Mapping[str, Any], key: str) -> tuple[TrainConfig, str]:
    """What the stored autoencoder was fitted with, and to which embedding."""
    params = slot[_keys.PARAMS]
    try:
        config, use_rep, missing = TrainConfig.restored(params), str(params["use_rep"]), ()
    except KeyError as error:
        missing = error.args
    if missing or bool(params.get("applied", False)):
        msg = (
            f"{key!r} was not fitted here: its settings are not known"
            f"{f' ({listing(missing)})' if missing else ''}. Run ssc.tl.stability on the cells of ssc.tl.fit_sae."
        )
        raise ValueError(msg)
    return config, use_rep


def _cells(adata: AnnData | MuData, slot: Mapping[str, Any], key: str, use_rep: str) -> tuple[np.ndarray, np.ndarray]:
    """The embedding, and which cells the stored fit held out."""
    X = get_rep(adata, use_rep)
    held_out = np.asarray(adata.obs_names.isin(np.asarray(slot[_keys.VALIDATION]).astype(str)))
    expected = int(slot[_keys.PARAMS]["n_obs"]), int(slot[_keys.PARAMS]["n_validation"])
    present = len(X), int(held_out.sum())
    n_dimensions = len(slot[_keys.WEIGHTS]["W_enc"])
    if present != expected or X.shape[1] != n_dimensions:
        msg = (
            f"{key!r} was fitted to {expected[0]} cells x {n_dimensions} dimensions, {expected[1]} of the cells held "
            f"out; found {present[0]} x {X.shape[1]} and {present[1]}. Run ssc.tl.stability on the cells of "
            "ssc.tl.fit_sae."
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
    if n_drawn < max(MIN_CELLS, config.n_features):
        msg = (
            f"subsample={subsample} leaves {n_drawn} cells for {config.n_features} features: "
            "that is too few to fit again. Raise it."
        )
        raise ValueError(msg)
    return n_drawn
