"""Fit a sparse autoencoder to an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sparsesc._logging import hint, info, progress, warning
from sparsesc._random import RNGLike, SeedLike, as_generator, describe
from sparsesc._values import listing
from sparsesc.door import _keys
from sparsesc.door._checks import check_adata, check_key_free, get_obs_column, get_rep, writable
from sparsesc.door._slots import uns_entry, write_sae

from ._reference import facts_of
from ._settings import checked_config, stored_settings

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from scipy.sparse import csr_matrix

    from sparsesc.nn import SparseAutoencoder, TrainConfig, TrainResult


def fit_sae(
    adata: AnnData | MuData,
    *,
    use_rep: str = "X_scVI",
    architecture: str = "matryoshka",
    n_features: int | Literal["auto"] | None = None,
    k: int | Literal["auto"] | None = None,
    matryoshka_widths: Sequence[int] | None = None,
    full_width_weight: float | None = None,
    init: str = "kmeans",
    penalty: float | None = None,
    noise: float = 0.6,
    tie_strength: float = 15.0,
    resample_dead: bool = False,
    whiten: bool = False,
    batch_key: str | None = None,
    validation: float = 0.1,
    max_steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    patience: int | None = 50,
    precision: str = "auto",
    device: str = "auto",
    rng: SeedLike | RNGLike | None = 0,
    key_added: str = "sae",
    progress_bar: bool | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Turn an embedding into sparse features.

    Every cell becomes a handful of active features out of `n_features`, from which its embedding can be rebuilt. All
    that follows (:func:`feature_association`, :func:`feature_genes`, :func:`feature_enrichment`) asks what they mean.

    Parameters
    ----------
    adata
        Cells with an embedding in ``obsm``. A MuData works with an embedding in its own ``obsm``.
    use_rep
        Entry of ``obsm`` (array, sparse matrix or DataFrame, cells x d), or ``"X"`` for the expression matrix itself.
    architecture
        ``"matryoshka"`` (nested dictionaries over BatchTopK), ``"batchtopk"``, ``"topk"``, ``"relu"`` (L1),
        ``"jumprelu"``, ``"gated"`` or ``"archetypal"`` (features stay near mixtures of the cells' k-means centres: they
        hardly depend on `rng`). The default found labels best in our comparison: its first features have to describe
        the cells alone, so broad cell types are not split up among narrow features.
    n_features
        Width F. Default, also ``"auto"``: the power of two nearest to 3 d, at least 64 and at most a quarter of the
        cells.
    k
        Active features per cell: exactly for ``"topk"``, on average for all others. Default, also ``"auto"``: d / 3,
        between 8 and 32, at most F / 4.
    matryoshka_widths
        Widths of the nested dictionaries of ``"matryoshka"``, ascending. Default: F/16, F/8, F/4, F/2, F; for
        embeddings of at most 20 dimensions F/4, F/2, F.
    full_width_weight
        Share of the loss of ``"matryoshka"`` that the whole dictionary has; its narrower widths have equal shares of
        the rest. Default: 2/3; for embeddings of at most 20 dimensions the same share for all. The smaller, the
        broader the first features, and the fewer fine ones beside them.
    init
        Where features start: ``"kmeans"`` at the centres of groups of cells (as many as features; for ``"matryoshka"``
        few and large groups first), which the cells alone determine, or ``"random"`` at directions drawn by `rng`.
        Fits to the same cells are then much alike for any `rng`, which is no evidence that other cells give the same.
        ``"archetypal"`` codes always start at centres.
    penalty
        Fixed sparsity penalty of ``"relu"`` and ``"gated"``; by default it is moved until the code has `k` active
        features per cell.
    noise
        Standard deviation of the noise that the encoder gets in training, in units of the embedding's overall standard
        deviation. 0 fits the given cells more closely, and unseen cells and labels less well. In our study
        ``noise=1, tie_strength=5`` gave the features that fit labels best and were found again most often, and left
        twice as much of a latent unexplained.
    tie_strength
        Pull of a feature's encoder toward its decoder row, times F / n. It keeps features alive, and from memorising
        cells; 0 lets them specialise and die.
    resample_dead
        Give features that fire in no cell to the cells that are reconstructed worst (``"batchtopk"`` and
        ``"matryoshka"``). For reconstruction, with ``noise=0, tie_strength=0`` and a high `lr`; such features describe
        few cells and change from seed to seed.
    whiten
        Give all directions of the embedding equal variance first.
    batch_key
        Column of ``obs``: validation then holds out whole groups (donors, batches), not single cells.
    validation
        Share of cells that is held out: they choose the best state, stop the training and give the metrics. 0 uses all
        cells for training and reports metrics on them.
    max_steps
        Optimiser steps. Default: 2,000, or 10 passes over the cells if that is more.
    batch_size
        Cells per step. Default: a sixteenth of the cells, between 32 and 4,096.
    lr
        Peak learning rate. Default: 2e-4 sqrt(2^14 / F), at most 2e-3.
    patience
        Epochs without improvement on held-out cells before training winds down early; ``None`` never does.
    precision
        Of the encoder product in training on the CPU: ``"float32"``, ``"bfloat16"``, or ``"auto"``, which takes half
        precision for more than 64 dimensions where the processor has instructions for it.
    device
        ``"auto"`` (a GPU when there is one and the problem is large), ``"cpu"``, or a torch device.
    rng
        Seed or generator: the same gives the same result, bit for bit (on the same machine, but for the wall times in
        the history).
    key_added
        Name under which everything is stored; several autoencoders live side by side.
    progress_bar
        Show progress. Default: unless ``sc.settings.verbosity`` is 0.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy. Writes

    `adata.obsm["X_{key_added}"]`
        Codes, cells x F, CSR float32, non-negative.
    `adata.uns[key_added]["params"]`
        What was asked and used.
    `adata.uns[key_added]["weights"]`
        ``W_enc`` (d, F), ``b_enc`` (F,), ``W_dec`` (F, d) with unit rows, ``b_dec`` (d,), ``threshold`` (F,), in the
        original units of the embedding.
    `adata.uns[key_added]["history"]`
        One row an epoch.
    `adata.uns[key_added]["metrics"]`
        On held-out cells: ``fvu``, ``explained_variance``, ``l0``, ``cosine``, ``shrinkage``; ``dead_fraction`` is the
        share of features that are active in no cell at all.
    `adata.uns[key_added]["features"]`
        One row a feature: ``density``, ``mean_active``, ``max``, ``n_cells``, ``dead``.
    `adata.uns[key_added]["validation_obs"]`
        Names of the held-out cells.
    `adata.uns[key_added]["reference"]`
        What :func:`apply_sae` compares new cells with: residuals of the held-out cells (their quantiles), densities.

    Raises
    ------
    KeyError
        If the embedding or the batch column does not exist.
    ValueError
        If the embedding has NaN or infinite values, is constant, has too few cells, or options do not fit together.
    TypeError
        If the embedding does not hold numbers.

    Notes
    -----
    A sparse code shows only what its embedding holds: batch effects in, batch features out. Ctrl-C keeps the best
    state so far. With fewer than a few hundred cells, clusters tell you as much as features do.

    References
    ----------
    Bussmann et al. 2025, Learning multi-level features with matryoshka sparse autoencoders; Bussmann et al. 2024,
    BatchTopK sparse autoencoders; Gao et al. 2024, Scaling and evaluating sparse autoencoders; Rajamanoharan et al.
    2024, Improving dictionary learning with gated sparse autoencoders, and Jumping ahead; Bricken et al. 2023, Towards
    monosemanticity; Fel et al. 2025, Archetypal SAE.

    Examples
    --------
    >>> import scanpy as sc, sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    """
    from sparsesc.nn import train

    check_adata(adata)
    slots = check_key_free(adata, key_added)
    X = get_rep(adata, use_rep)
    n = len(X)
    config = checked_config(
        X.shape,
        architecture=architecture,
        n_features=n_features,
        k=k,
        matryoshka_widths=matryoshka_widths,
        full_width_weight=full_width_weight,
        init=init,
        penalty=penalty,
        noise=noise,
        tie_strength=tie_strength,
        resample_dead=resample_dead,
        whiten=whiten,
        max_steps=max_steps,
        batch_size=batch_size,
        lr=lr,
        patience=patience,
        precision=precision,
    )
    generator = as_generator(rng)
    held_out = held_out_cells(adata, n, validation, batch_key, generator)
    if n - held_out.sum() < config.k:
        msg = f"Only {n - held_out.sum()} cells are left for training. Lower validation."
        raise ValueError(msg)
    adata = writable(adata, copy=copy)

    X_train, X_validation = X[~held_out], X[held_out] if held_out.any() else None
    with progress(total=100, desc="Fitting features", enabled=progress_bar) as bar:

        def on_epoch(row: dict[str, float], share: float) -> None:
            bar.update(int(100 * share) - bar.n)
            bar.set_postfix(fvu=f"{row['train_fvu']:.3f}", held_out=f"{row['validation_fvu']:.3f}", refresh=False)

        used = resolve_device(device, len(X_train), config)
        result = train(X_train, config, X_validation=X_validation, rng=generator, device=used, on_epoch=on_epoch)

    codes = result.sae.encode(X)
    metrics = held_out_metrics(result.sae, codes, X_train if X_validation is None else X_validation)
    params = {"use_rep": use_rep, "n_obs": n, "n_validation": int(held_out.sum()), "validation": float(validation)}
    params |= stored_settings(result.config)
    params |= {"n_steps": result.n_steps, "best_epoch": result.best_epoch, "interrupted": result.interrupted}
    params |= {"batch_key": batch_key, "rng": describe(rng), "device": used}
    entry = uns_entry(key_added, codes, result.sae, params, metrics)
    entry[_keys.HISTORY] = pd.DataFrame(result.history)
    entry[_keys.VALIDATION] = np.array(adata.obs_names[held_out], dtype=object)
    entry[_keys.REFERENCE] = facts_of(result.sae, X, codes, held_out)
    write_sae(adata, slots, codes, entry)
    _report(result, metrics, key_added, use_rep)
    return adata if copy else None


def held_out_metrics(sae: SparseAutoencoder, codes: csr_matrix, held_out: np.ndarray) -> dict[str, float]:
    """Metrics on held-out cells; dead are features without activity in any of the cells that ``codes`` are of."""
    from sparsesc.nn._metrics import fit_metrics

    metrics = fit_metrics(sae, held_out)
    metrics["dead_fraction"] = float((np.bincount(codes.indices, minlength=sae.n_features) == 0).mean())
    return metrics


def held_out_cells(
    adata: AnnData | MuData, n: int, share: float, batch_key: str | None, rng: np.random.Generator
) -> np.ndarray:
    """Which cells are held out, (n,) bool: drawn one by one, or in whole groups of `batch_key`.

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
    if batch_key is None:
        if share > 0:
            held_out[rng.permutation(n)[:wanted]] = True
        return held_out
    groups = get_obs_column(adata, batch_key)
    labels = groups.astype("object").where(groups.notna(), "missing").astype(str).to_numpy()
    names, sizes = np.unique(labels, return_counts=True)
    if len(names) < 2:
        msg = f"Validation by groups needs at least two of them; adata.obs[{batch_key!r}] has only {listing(names)}."
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


def _report(result: TrainResult, metrics: dict[str, float], key: str, use_rep: str) -> None:
    if result.interrupted:
        warning(
            f"Interrupted after {result.n_steps} of {result.config.max_steps} steps: the best state so far is kept."
        )
    info(
        f"{use_rep} -> {result.config.n_features} features, {metrics['l0']:.1f} active per cell, "
        f"{metrics['explained_variance']:.1%} of the variance on held-out cells, "
        f"{metrics['dead_fraction']:.1%} of the features never active."
    )
    hint(f"added adata.obsm['X_{key}'] and adata.uns[{key!r}]. Next: ssc.tl.feature_association.")
