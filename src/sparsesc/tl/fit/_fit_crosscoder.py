"""Fit one dictionary to several embeddings of the same cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sparsesc._logging import info, progress, warning
from sparsesc._random import RNGLike, SeedLike, as_generator, describe
from sparsesc._train_config import TrainConfig
from sparsesc._values import check_share
from sparsesc.door import _keys
from sparsesc.door._checks import check_adata, check_key_free
from sparsesc.door._slots import record_sae

from ._blocks import Blocks, find_sources, join_blocks
from ._crosscoder_tables import SHARED, Reading, Rule, linear_cross, read_crosscoder, shuffle_pairing
from ._fit import Fit, fit_cells, held_out_cells
from ._fit_sae import report_fit, warn_of_depth
from ._options import training_options

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc.nn import SparseAutoencoder


@training_options(after="use_reps", short=True)
def fit_crosscoder(
    adata: AnnData | MuData,
    *,
    use_reps: Mapping[str, str] | Sequence[str],
    min_share: float = 0.1,
    alpha: float = 0.05,
    n_controls: int = 1,
    validation_groups: str | None = None,
    validation: float = 0.1,
    device: str = "auto",
    rng: SeedLike | RNGLike | None = 0,
    key_added: str = "sae",
    progress_bar: bool | None = None,
    copy: bool = False,
    **options: Any,
) -> AnnData | MuData | None:
    r"""Turn several embeddings of the same cells into one set of sparse features, and say which of them they share.

    Embeddings are centered, scaled to the same total variance and put side by side; a sparse autoencoder is fitted to
    that (:func:`fit_sae`; d is the sum of their dimensions). A feature has one activation in a cell, and a direction in
    every embedding.

    Parameters
    ----------
    adata
        Cells with embeddings in ``obsm``; or a MuData whose modalities have all of the cells.
    use_reps
        Entries of ``obsm``, ``["X_pca", "X_scVI"]``; or names for them, ``{"rna": "X_pca", "protein": "X_protein"}``.
        In a MuData a name that is a modality's means its ``obsm``: ``{"rna": "X_pca", "prot": "X_pca"}``.
    {training_options}
    min_share
        A feature can be shared only by embeddings that have at least this share of its direction.
    alpha
        Level of the false discovery rate at which features count as shared.
    n_controls
        Fits to cells whose embeddings were shuffled against each other. 0 leaves out these fits and those to each
        embedding alone.
    validation_groups, validation, device
        As in :func:`fit_sae`. Some cells must be held out: what is said of the features is measured on them.
    rng
        Seed or generator.
    key_added
        Name under which everything is stored, as by :func:`fit_sae`.
    progress_bar
        Show progress. Default: unless ``sc.settings.verbosity`` is 0.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy. Writes all that :func:`fit_sae` does, for the joint embedding, so that whatever reads an
    autoencoder reads this one, and

    ``obsm["X_{key_added}_joint"]``
        The embeddings side by side, float32, each centered and of total variance 1: what the weights are in the units
        of, and ``params["use_rep"]``.
    ``uns[key_added]["params"]["blocks"]``
        How it is made: names, modalities, entries of ``obsm`` and dimensions of the embeddings, means and scales.
        :func:`apply_sae` joins the embeddings of other cells by it.
    ``uns[key_added]["features"]``
        Also, for every embedding: `share_{name}`, its share of the squared length of the feature's decoder row; and
        `gain_{name}`, by how much its FVU on held-out cells would rise without the feature (negative where the feature
        is in its way). `pairing_r`, `pairing_pval`, `pairing_padj`: the correlation over held-out cells of what the two
        embeddings with the largest shares add to the feature's activation, each by itself; only for features with
        `min_share` in both. `kind`: ``"private"`` with `min_share` in one embedding only, ``"shared"`` when that
        correlation is positive with `padj` below `alpha`, ``"mixed"`` when it is not (the feature stands for unrelated
        things in both), empty for dead features. `embedding`: those with `min_share`, the largest first.
    ``uns[key_added]["crosscoder"]["embeddings"]``
        One row an embedding: `fvu` on held-out cells, `fvu_shuffled` (mean over the fits to shuffled cells), and
        `fvu_alone`, `l0_alone`, `dead_alone` of an autoencoder of the same width and sparsity for it alone.
    ``uns[key_added]["crosscoder"]["cross"]``
        One row a pair: `fvu` of the `target` on held-out cells when only the `source` is known and the dictionary fills
        in the rest, in `n_passes` (chosen on training cells), beside `fvu_linear` (ridge regression) and
        `fvu_shuffled`.
    ``uns[key_added]["crosscoder"]["counts"]``
        Features of each kind: `n` in the fit, and `n_shuffled` in the fits to shuffled cells (mean).

    Raises
    ------
    KeyError
        If there is no such modality, embedding or column.
    ValueError
        If fewer than two embeddings are named, one is constant or holds NaN or infinite values, a modality lacks
        cells, no cells are held out, or options do not fit together.
    TypeError
        If an embedding does not hold numbers, or `use_reps` does not hold names.

    See Also
    --------
    sparsesc.tl.fit_sae : Features of one embedding.
    sparsesc.get.crosscoder : Read the tables.
    sparsesc.pl.crosscoder : Plot them.

    Notes
    -----
    A feature has the share :math:`\lVert d_{i,b} \rVert^2` of embedding :math:`b`, the squared length of the part of
    its decoder row (of length 1) that belongs to that embedding.

    A direction in two embeddings does not make a feature shared. A sparse code saves features by describing two
    unrelated things by one where both happen to be large in the same cells: fitted to shuffled cells, of which nothing
    can be shared, 60 to 90 % of the features had a tenth of their direction or more in both embeddings (noisy
    simulations, RNA and protein, two halves of the genes). None of them passed the test on held-out cells. What passes
    may still be a batch effect, or the depth of a cell, in both.

    Decoder rows have unit length over all embeddings together, where Lindsey et al. penalize the sum of the lengths in
    each; with a fixed number of active features (BatchTopK, Minder et al.) no penalty is needed.

    When not to use it: for one embedding, or when embeddings are functions of each other (a PCA and an scVI latent of
    the same counts): all that they hold is shared then. With fewer than about a hundred held-out cells the test finds
    little. An autoencoder of the same width for one embedding always describes it better than a crosscoder, which
    spends its features on all: use this one to ask what is shared.

    On a MuData the codes are the MuData's; functions that need genes take a modality: copy
    ``mdata.obsm["X_sae"]`` and ``mdata.uns["sae"]`` into it.

    References
    ----------
    Lindsey et al. 2024, Sparse crosscoders for cross-layer features and model diffing. Minder et al. 2025, Overcoming
    sparsity artifacts in crosscoders to interpret chat-tuning (BatchTopK; why decoder norms alone mislead).

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> adata.obsm["X_first"], adata.obsm["X_rest"] = adata.obsm["X_pca"][:, :5], adata.obsm["X_pca"][:, 5:]
    >>> ssc.tl.fit_crosscoder(adata, use_reps=["X_first", "X_rest"], max_steps=100)
    >>> adata.uns["sae"]["crosscoder"]["counts"]["kind"].tolist()
    ['shared', 'mixed', 'private']
    """
    check_adata(adata)
    slots = check_key_free(adata, key_added)
    _check_options(min_share, alpha, n_controls, validation)
    earlier = adata.uns.get(key_added, {}).get(_keys.PARAMS, {})
    if slots.joint in adata.obsm and _keys.BLOCKS not in earlier:
        msg = f"key_added={key_added!r} would overwrite adata.obsm[{slots.joint!r}]. Choose another key_added."
        raise ValueError(msg)
    blocks, X = join_blocks(adata, find_sources(adata, use_reps))
    config = TrainConfig.of(options).sized(*X.shape)
    generator = as_generator(rng)
    unseen = held_out_cells(adata, len(X), validation, validation_groups, generator)
    with progress(total=100, desc="Fitting features", enabled=progress_bar) as bar:

        def on_epoch(row: dict[str, float], share: float) -> None:
            bar.update(int(100 * share) - bar.n)

        fit = fit_cells(X, config, unseen, generator, device=device, on_epoch=on_epoch)
    report_fit(fit, key_added, slots.joint)
    rule = Rule(blocks.names, blocks.columns, float(min_share), float(alpha))
    reading = read_crosscoder(fit.sae, X, unseen, rule)
    alone: list[dict[str, float]] = []
    shuffled: list[Reading] = []
    if n_controls and not fit.interrupted:
        alone, shuffled = _controls(X, fit, rule, n_controls, generator, progress_bar)

    params = {"use_rep": slots.joint, "validation": float(validation), "validation_groups": validation_groups}
    params |= {"min_share": rule.min_share, "alpha": rule.alpha, "n_controls": n_controls, "rng": describe(rng)}
    entry = fit.entry(key_added, X, adata, params | {_keys.BLOCKS: blocks.stored()})
    features = entry[_keys.FEATURES]
    entry[_keys.FEATURES] = features.join(reading.features.set_index(features.index))
    entry[_keys.CROSSCODER] = _summary(blocks, X, unseen, rule, reading, alone, shuffled)
    result = record_sae(adata, slots, fit.codes, entry, copy=copy, joint=X)
    _report(entry[_keys.CROSSCODER], n_controls=len(shuffled))
    warn_of_depth(features["depth_r"])
    return result


def _controls(
    X: np.ndarray, fit: Fit, rule: Rule, n_controls: int, rng: np.random.Generator, progress_bar: bool | None
) -> tuple[list[dict[str, float]], list[Reading]]:
    """Metrics of an autoencoder for each embedding alone, and crosscoders of shuffled cells, settings as they were."""
    from sparsesc.nn._metrics import fit_metrics

    unseen, config = fit.held_out, replace(fit.config, k_aux=None)
    alone, shuffled = [], []
    with progress(total=len(rule.columns) + n_controls, desc="Fitting controls", enabled=progress_bar) as bar:

        def control(cells: np.ndarray) -> SparseAutoencoder:
            seed = np.random.default_rng(rng.integers(2**63))
            again = fit_cells(cells, config, unseen, seed, device=fit.device)
            if again.interrupted:
                raise KeyboardInterrupt
            bar.update()
            return again.sae

        try:
            for part in rule.columns:
                block = np.ascontiguousarray(X[:, part])
                alone.append(fit_metrics(control(block), block[unseen]))
            for _ in range(n_controls):
                mixed = shuffle_pairing(X, rule.columns, unseen, rng)
                shuffled.append(read_crosscoder(control(mixed), mixed, unseen, rule))
        except KeyboardInterrupt:
            warning("Interrupted: controls that were not finished are missing.")
    return alone, shuffled


def _summary(
    blocks: Blocks,
    X: np.ndarray,
    unseen: np.ndarray,
    rule: Rule,
    reading: Reading,
    alone: list[dict[str, float]],
    shuffled: list[Reading],
) -> dict[str, Any]:
    """Tables of the embeddings, of pairs of them and of kinds of features; NaN where a control is missing."""

    def mean(values: list[np.ndarray], like: np.ndarray) -> np.ndarray:
        return np.mean(values, axis=0) if values else np.full(len(like), np.nan)

    embeddings = pd.DataFrame(blocks.sources).rename(columns={"name": "embedding"})
    embeddings["n_dimensions"] = blocks.n_dimensions
    embeddings["fvu"] = reading.fvu
    embeddings["fvu_shuffled"] = mean([reading.fvu for reading in shuffled], reading.fvu)
    padded = alone + [{}] * (len(embeddings) - len(alone))
    for column, metric in (("fvu_alone", "fvu"), ("l0_alone", "l0"), ("dead_alone", "dead_fraction")):
        embeddings[column] = [metrics.get(metric, np.nan) for metrics in padded]

    cross = reading.cross
    columns = dict(zip(rule.names, rule.columns, strict=True))
    pairs = zip(cross["source"], cross["target"], strict=True)
    cross["fvu_linear"] = [linear_cross(X, unseen, columns[source], columns[target]) for source, target in pairs]
    cross["fvu_shuffled"] = mean([reading.cross["fvu"].to_numpy() for reading in shuffled], cross["fvu"].to_numpy())
    kinds = list(reading.counts)
    n = np.array([reading.counts[kind] for kind in kinds])
    n_shuffled = mean([np.array([reading.counts[kind] for kind in kinds]) for reading in shuffled], n)
    counts = pd.DataFrame({"kind": kinds, "n": n, "n_shuffled": n_shuffled})
    return {"embeddings": embeddings, "cross": cross, "counts": counts}


def _check_options(min_share: float, alpha: float, n_controls: int, validation: float) -> None:
    if not 0 < min_share <= 0.5:
        msg = f"min_share must be a share between 0 and 0.5, found {min_share!r}."
        raise ValueError(msg)
    check_share(alpha, name="alpha")
    if isinstance(n_controls, bool) or not isinstance(n_controls, int | np.integer) or n_controls < 0:
        msg = f"n_controls must be a whole number, 0 for none, found {n_controls!r}."
        raise ValueError(msg)
    if not validation:
        msg = "Some cells must be held out to tell what is shared: use validation above 0."
        raise ValueError(msg)


def _report(tables: dict[str, Any], *, n_controls: int) -> None:
    explained = ", ".join(
        f"{name} {1 - fvu:.1%}"
        for name, fvu in zip(tables["embeddings"]["embedding"], tables["embeddings"]["fvu"], strict=True)
    )
    info(f"Explained variance of each embedding on held-out cells: {explained}.")
    row = tables["counts"].set_index("kind").loc[SHARED]
    beside = f"; {row['n_shuffled']:.1f} when cells are shuffled" if n_controls else ""
    info(f"{int(row['n'])} features are shared{beside}.")
