"""Fit a sparse autoencoder to an embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sparsesc._logging import hint, info, progress, warning
from sparsesc._random import RNGLike, SeedLike, as_generator, describe
from sparsesc._train_config import TrainConfig
from sparsesc._values import listing
from sparsesc.door import _keys
from sparsesc.door._checks import check_adata, check_key_free, get_rep
from sparsesc.door._slots import record_sae

from ._fit import Fit, fit_cells, held_out_cells
from ._options import training_options

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

DEPTH_R = 0.5  # correlation with the depth of cells from which it is said


@training_options(after="use_rep")
def fit_sae(
    adata: AnnData | MuData,
    *,
    use_rep: str = "X_scVI",
    validation_groups: str | None = None,
    validation: float = 0.1,
    device: str = "auto",
    rng: SeedLike | RNGLike | None = 0,
    key_added: str = "sae",
    progress_bar: bool | None = None,
    copy: bool = False,
    **options: Any,
) -> AnnData | MuData | None:
    r"""Turn an embedding into sparse features.

    Every cell becomes a handful of active features out of `n_features`, from which its embedding can be rebuilt. The
    functions that follow (:func:`feature_association`, :func:`feature_genes`, :func:`feature_enrichment`) tell what
    the features mean.

    Parameters
    ----------
    adata
        Cells with an embedding in ``obsm``. A MuData works with an embedding in its own ``obsm``.
    use_rep
        Entry of ``obsm`` (array, sparse matrix or DataFrame, cells x d), or ``"X"`` for the expression matrix itself.
    {training_options}
    validation_groups
        Column of ``obs``: validation then holds out whole groups of it (donors, batches), not single cells. It only
        chooses held-out cells: nothing is corrected.
    validation
        Share of cells that is held out: they choose the best state, stop the training and give the metrics. 0 uses all
        cells for training and reports metrics on them.
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
        Options of the call, and what was used.
    `adata.uns[key_added]["weights"]`
        ``W_enc`` (d, F), ``b_enc`` (F,), ``W_dec`` (F, d) with unit rows, ``b_dec`` (d,), ``threshold`` (F,), in the
        original units of the embedding.
    `adata.uns[key_added]["history"]`
        One row an epoch.
    `adata.uns[key_added]["metrics"]`
        On held-out cells: ``fvu``, ``explained_variance``, ``l0``, ``cosine``, ``shrinkage``; ``dead_fraction`` is the
        share of features that are active in no cell at all.
    `adata.uns[key_added]["features"]`
        One row a feature: ``density``, ``mean_active``, ``max``, ``n_cells``, ``dead``; ``on_threshold``, the
        activation above which the feature counts as on for labels, genes and names, and ``n_on``, the cells above it;
        ``depth_r``, the correlation of its activation with the logarithm of the total counts of a cell (NaN if they
        are not known).
    `adata.uns[key_added]["validation_obs"]`
        Names of the held-out cells.
    `adata.uns[key_added]["reference"]`
        What :func:`apply_sae` compares new cells with: residuals of the held-out cells (their quantiles), densities.

    Raises
    ------
    KeyError
        If the embedding or the column of groups does not exist.
    ValueError
        If the embedding has NaN or infinite values, is constant, has too few cells, or options do not fit together.
    TypeError
        If the embedding does not hold numbers, or there is no such option.

    See Also
    --------
    sparsesc.tl.feature_association : Which labels each feature stands for.
    sparsesc.tl.feature_genes : Which genes.
    sparsesc.tl.apply_sae : Encode other cells.
    sparsesc.tl.sweep : Compare settings.

    Notes
    -----
    A cell :math:`x` (in units in which the whole embedding has mean 0 and variance 1) is encoded and rebuilt as

    .. math::

        f = \sigma((x - b_{dec}) W_{enc} + b_{enc}), \qquad \hat x = b_{dec} + f W_{dec},

    where :math:`\sigma` keeps the largest positive entries (``"topk"``: `k` of each cell; ``"batchtopk"`` and
    ``"matryoshka"``: `k` times the number of cells of each batch) and every row of :math:`W_{dec}` has length 1.
    Training minimizes the squared error plus an auxiliary loss for dead features. ``"matryoshka"`` adds up the errors
    of the first :math:`m_1 < m_2 < \dots < F` features alone,

    .. math::

        L = \sum_p w_p \, \lVert x - b_{dec} - f_{:m_p} W_{dec, :m_p} \rVert^2 .

    After training one threshold, at which cells have `k` active features on average, replaces the choice within a
    batch, so that the code of a cell does not depend on other cells.

    Features can follow how deeply cells were sequenced: the first principal component often does. The log names those
    whose activation correlates with the logarithm of the total counts by more than .5.

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
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> adata.obsm["X_sae"].shape  # 700 cells, 128 features, most of them silent in any one cell
    (700, 128)
    """
    check_adata(adata)
    slots = check_key_free(adata, key_added)
    X = get_rep(adata, use_rep)
    config = TrainConfig.of(options).sized(*X.shape)
    generator = as_generator(rng)
    held_out = held_out_cells(adata, len(X), validation, validation_groups, generator)
    with progress(total=100, desc="Fitting features", enabled=progress_bar) as bar:

        def on_epoch(row: dict[str, float], share: float) -> None:
            bar.update(int(100 * share) - bar.n)
            bar.set_postfix(fvu=f"{row['train_fvu']:.3f}", held_out=f"{row['validation_fvu']:.3f}", refresh=False)

        fit = fit_cells(X, config, held_out, generator, device=device, on_epoch=on_epoch)
    params = {"use_rep": use_rep, "validation": float(validation), "rng": describe(rng)}
    entry = fit.entry(key_added, X, adata, params | {"validation_groups": validation_groups})
    result = record_sae(adata, slots, fit.codes, entry, copy=copy)
    report_fit(fit, key_added, use_rep)
    warn_of_depth(entry[_keys.FEATURES]["depth_r"])
    return result


def report_fit(fit: Fit, key: str, use_rep: str) -> None:
    """Log what was fitted."""
    if fit.interrupted:
        warning(f"Interrupted after {fit.n_steps} of {fit.config.max_steps} steps: the best state so far is kept.")
    info(
        f"{use_rep} -> {fit.config.n_features} features, {fit.metrics['l0']:.1f} active per cell, "
        f"{fit.metrics['explained_variance']:.1%} of the variance on held-out cells, "
        f"{fit.metrics['dead_fraction']:.1%} of the features never active."
    )
    hint(f"added adata.obsm['X_{key}'] and adata.uns[{key!r}]. Next: ssc.tl.feature_association.")


def warn_of_depth(r: pd.Series) -> None:
    """Say which features follow the depth of cells."""
    following = r[r.abs() > DEPTH_R].sort_values(key=np.abs, ascending=False)
    if len(following):
        names = listing([f"{name} (r {value:.2f})" for name, value in following.items()])
        warning(
            f"{len(following)} of {len(r)} features follow the total counts of cells (|r| > {DEPTH_R} with their "
            f"logarithm): {names}. What goes with depth, such as cell size or quality, goes with them: see 'depth_r'."
        )
