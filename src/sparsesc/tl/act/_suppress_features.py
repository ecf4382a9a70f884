from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc import _random as random
from sparsesc._values import as_list, check_positive_int, check_share, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._obs_columns import Labels, read_labels
from sparsesc.door._slots import record
from sparsesc.stats.groups._transfer import known_elsewhere

from ._removal import (
    AFTER,
    BEFORE,
    RANDOM,
    BatchSplit,
    JudgedEmbedding,
    compared_states,
    draw_rows,
    helpful_number,
    rank_features,
    transfer_rows,
    weaken,
)
from ._scib import check_scib, scib_rows

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc._random import RNGLike, SeedLike

_MOST_CELLS = 50_000  # among which neighbors are searched
_ENOUGH_OVERLAP = 0.5
_CEILING = 0.95  # accuracy from which a transfer hardly has anything to gain
_WORSE = 0.05
_TRANSFER = "transfer"


def suppress_features(
    adata: AnnData | MuData,
    features: str | int | Sequence[str | int] | None = None,
    *,
    batch_key: str | None = None,
    bio_keys: str | Sequence[str] | None = None,
    key: str = "sae",
    bio_margin: float = 1.0,
    n_suppressed: int | Literal["transfer"] | None = None,
    alpha: float = 0.05,
    factor: float = 0.0,
    label_keys: str | Sequence[str] | None = None,
    holdout: float = 0.5,
    n_levels: int = 3,
    min_cells: int = 10,
    n_permutations: int = 200,
    n_controls: int = 5,
    n_neighbors: int = 15,
    n_scored: int = 10_000,
    scib: bool | str | Sequence[str] = False,
    key_added: str | None = None,
    rng: SeedLike | RNGLike | None = 0,
    progress_bar: bool | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Remove batch features from an embedding, keep those of biology, and test whether that helped.

    Half of the cells choose the features that depend on the batch; the other half judge the result.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder.
    features
        Features to suppress, by name or position. ``None``: chosen by `batch_key`.
    batch_key
        Column of ``obs`` with batches: donors, technologies, or an unwanted condition.
    bio_keys
        Columns of ``obs`` with the biology to keep, such as cell types. Dependence on the batch is tested within each
        combination of their labels. Cells without a label neither choose nor judge, but are cleaned like all others.
    key
        Name of the sparse autoencoder.
    bio_margin
        Features that know a larger share of biology than of the batch are spared: those whose information about
        `bio_keys` (within batches), over its entropy and times this factor, reaches their information about the batch
        (within labels) over its entropy. 0 spares none.
    n_suppressed
        Suppress at most this many features, those with most information about the batch. ``"transfer"``: the number
        with the best label transfer in the choosing cells, which may be 0. ``None``: all that depend on the batch and
        are not spared.
    alpha
        Features whose dependence on the batch does not beat shuffled batches at this level (for all features together)
        are not touched.
    factor
        What an activation is multiplied by: 0 removes the feature, values below 1 weaken it.
    label_keys
        Columns of ``obs`` whose labels are transferred between batches to judge the result. ``None``: `bio_keys`.
    holdout
        Share of the cells that judge; the same from every batch and combination of labels.
    n_levels
        Levels into which the activations of a feature are cut, besides silence.
    min_cells
        Features that are active in fewer of the choosing cells are not touched.
    n_permutations
        How often batches (and labels) are shuffled.
    n_controls
        Draws of random features.
    n_neighbors
        Neighbors that vote for a label.
    n_scored
        At most this many of the judging cells are scored, drawn by `rng`; neighbors are searched among at most 50,000
        cells.
    scib
        Also score by scib-metrics (the extra ``scib``): ``True`` for ``"silhouette_label"``,
        ``"nmi_ari_cluster_labels_kmeans"``, ``"clisi_knn"`` (about biology), ``"bras"``, ``"ilisi_knn"``,
        ``"kbet_per_label"``, ``"graph_connectivity"`` and ``"pcr_comparison"`` (about batches), or names of some. Their
        first calls take minutes, because they are compiled.
    key_added
        Entry of ``obsm`` for the cleaned embedding. ``None``: ``"{use_rep}_clean"``.
    rng
        Draws cells, shuffled batches and random features.
    progress_bar
        Show a progress bar. ``None``: unless verbosity is 0.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``obsm["{use_rep}_clean"]``
        The embedding of all cells without the features, float32 (or ``obsm[key_added]``).
    ``uns[key]["suppression"]``
        A dict of tables:

        `features`: one row per feature, suppressed ones first: `feature`, `n_cells` and `mean_active` (over all cells),
        and with `batch_key` the `information` about the batch within labels in the choosing cells (nats, held out cell
        by cell, less its mean under shuffled batches), its `share` of the entropy of the batch, `pval`, `padj`
        (family-wise), `information_heldout` and `pval_heldout` (the same in the judging cells, which did not choose),
        `bio_information` and `bio_share` (the same about labels within batches; NaN without `bio_keys`), `spared`
        (depends on the batch, but more on biology); and `suppressed`.

        With `batch_key` and labels `transfer`: for each `label_key` and `batch` the `accuracy` and `macro_f1` with
        which the judging cells of that batch get their label from the nearest cells of all other batches, `n_cells`
        (of labels that another batch has), and `norm`, the mean length of the move, for each `state` and `draw`:
        ``"before"``, ``"after"``, ``"random_features"`` (the same number of others), ``"matched_features"`` (others
        with a similar sum of squared activations) and ``"batch_means"`` (no features: batches shifted by their mean
        difference within labels, estimated from the choosing cells).

        With `scib` also `scib`: `label_key`, `state`, `draw`, `metric`, `about` (``"bio"`` or ``"batch"``), `value`,
        of the judging cells.
    ``uns[key]["params"]["suppress_features"]``
        The options of the call, the number of features suppressed (`n_suppressed`), what chose them (`chosen_by`), and
        with `batch_key` the cells on either side (`n_choosing`, `n_judging`).

    Raises
    ------
    ImportError
        If `scib` is requested and scib-metrics is not installed.
    KeyError
        If there is no sparse autoencoder under `key`, or no such feature or column.
    TypeError
        If a column of labels holds numbers.
    ValueError
        If neither features nor `batch_key` are given, there is only one batch, no two batches share a label, an option
        is out of its range, or `key_added` is the embedding itself.

    See Also
    --------
    sparsesc.tl.steer : change features in some cells.
    sparsesc.get.suppression : the tables of this function.
    sparsesc.pl.suppression : draw the suppressed features, and the label transfer before and after.
    sparsesc.stats.information_test : the test of dependence on the batch.

    Notes
    -----
    A cell at :math:`x` with the code :math:`f` becomes

    .. math:: x' = x + D(f') - D(f) = x - (1 - c) \sum_{i \in S} f_i\, w_i ,

    where :math:`D` is the decoder of the autoencoder, :math:`w_i` the decoder direction of feature :math:`i`, :math:`S`
    the suppressed features and :math:`c` the `factor`: what the features do not describe stays as it is. With the batch
    :math:`B`, the labels :math:`L` of `bio_keys` and the level :math:`Z_i` of feature :math:`i`, a feature is
    suppressed when it depends on the batch and

    .. math:: \frac{I(Z_i; B \mid L)}{H(B \mid L)} > m\, \frac{I(Z_i; L \mid B)}{H(L \mid B)} ,

    with mutual information :math:`I`, entropy :math:`H` and :math:`m` the `bio_margin`.

    Confounding. Where batches differ in composition, a feature of a cell type depends on the batch although nothing is
    wrong with it. With `bio_keys`, dependence is conditional: the mean over labels of the information within each
    label, against batches shuffled within labels. Only labels that several batches have can say anything; if there is
    none, this is an error, because then no method can separate batch from biology. Without `bio_keys` composition
    counts as batch, and a warning says so.

    Information is the mutual information of the batch with the level of a feature, see
    :func:`sparsesc.stats.information_test`. Each cell is judged by the shares among all others, so an independent
    feature has none on average, in few cells as in many.

    Read `transfer` beside the random features, and beside ``"batch_means"``: a mean shift takes no autoencoder. A gain
    smaller than the spread over draws, or over `rng`, is none. Suppression can mix batches well (`scib`) and not help a
    transfer at all: a shift that all cells of a batch share does not change which cells are nearest.

    When not to use it: a feature of one type in one batch places that type in the embedding, and without the feature
    this place is lost; wide codes have more such features, and `bio_margin` above 1 touches fewer. A feature may carry
    biology that no column describes, such as a state that only sick donors have: nothing protects it. Embeddings from a
    model of batches (scVI with ``batch_key``) have little left to suppress. Do not test differences between batches on
    the cleaned embedding: it was made to have none. Labels of the judging cells are used for scores alone, but the
    autoencoder may have seen these cells.

    References
    ----------
    Pedrocchi, Barkmann, Joudaki and Boeva (2025), Sparse Autoencoders Reveal Interpretable Features in Single-Cell
    Foundation Models, bioRxiv 2025.10.22.681631. Luecken et al. (2022), Benchmarking atlas-level data integration in
    single-cell genomics, *Nature Methods* 19, 41-50 (the scores of scib).

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.suppress_features(adata, "sae_3")
    >>> adata.obsm["X_pca_clean"].shape
    (700, 50)

    With the phase of the cell cycle as a batch, and label transfer between phases:

    >>> ssc.tl.suppress_features(adata, batch_key="phase", bio_keys="bulk_labels", n_permutations=49, n_controls=1)
    >>> transfer = ssc.get.suppression(adata, table="transfer")
    >>> sorted(transfer["batch"].unique())
    ['G1', 'G2M', 'S']
    """
    sizes = {"n_levels": n_levels, "min_cells": min_cells, "n_permutations": n_permutations}
    scoring = {"n_neighbors": n_neighbors, "n_scored": n_scored}
    optional = {} if n_suppressed in (None, _TRANSFER) else {"n_suppressed": n_suppressed}
    optional |= {"n_controls": n_controls} if n_controls else {}
    for name, value in (sizes | scoring | optional).items():
        check_positive_int(value, name=name)
    check_share(holdout, name="holdout")
    check_share(alpha, name="alpha")
    if not 0 <= bio_margin < np.inf:
        msg = f"bio_margin must be a number of at least 0, found {bio_margin!r}."
        raise ValueError(msg)
    if not 0 <= factor < 1:
        msg = f"factor must be at least 0 and below 1 (1 would change nothing), found {factor!r}."
        raise ValueError(msg)
    metrics = check_scib(scib)
    known = check.get_feature_table(adata, key)
    use_rep = str(check.get_sae_slot(adata, key)[_keys.PARAMS]["use_rep"])
    X, codes = check.get_rep(adata, use_rep), check.get_codes(adata, key)
    W = np.asarray(check.get_sae_slot(adata, key)[_keys.WEIGHTS]["W_dec"], dtype=np.float64)
    added = _check_slot(adata, key_added, use_rep, key)
    chosen = None if features is None else check.feature_names(adata, features, key)
    if batch_key is None:
        _check_without_batches(chosen, bio_keys=bio_keys, label_keys=label_keys, scib=metrics)
    generator = random.as_generator(rng)

    table = pd.DataFrame({"feature": known.index.astype(str), "n_cells": known["n_cells"].to_numpy()})
    table["mean_active"] = known["mean_active"].to_numpy()
    split, labels = None, []
    with _logging.progress(desc="suppress_features", enabled=progress_bar) as bar:
        if batch_key is not None:
            bio = [read_labels(adata, name) for name in as_list(bio_keys or [])]
            labels = [read_labels(adata, name) for name in as_list(label_keys or [])] or bio
            split = BatchSplit.read(read_labels(adata, batch_key, integers=True), bio, holdout, generator)
            _check_split(split, batch_key, [column.name for column in bio])
            if not bio and bio_margin:
                _warn_without_biology(batch_key, labels=bool(labels))
            labels = [column for column in labels if _is_shared(column, split)]
            if n_suppressed == _TRANSFER and not labels:
                msg = f"n_suppressed={_TRANSFER!r} needs labels that several batches have: name bio_keys or label_keys."
                raise ValueError(msg)
            ranked, order = rank_features(
                codes, split, labeled=bool(bio), bio_margin=bio_margin, alpha=alpha, rng=generator, **sizes
            )
            table = pd.concat([table, ranked], axis=1)
            bar.update()
            if n_suppressed == _TRANSFER and chosen is None:
                order = order[
                    : helpful_number(codes, X, W, order, split, labels, factor=factor, rng=generator, **scoring)
                ]
            elif chosen is None:
                order = order[:n_suppressed]
            table["suppressed"] = np.isin(np.arange(len(table)), order)
        if chosen is not None:
            table["suppressed"] = table["feature"].isin(chosen)
            if "spared" in table:
                table["spared"] &= ~table["suppressed"]
        suppressed = np.flatnonzero(table["suppressed"])
        by = ["suppressed"] if split is None else ["suppressed", "information"]
        tables = {"features": table.sort_values(by, ascending=False, kind="stable", ignore_index=True)}
        if split is not None and labels:
            states = compared_states(
                codes,
                X,
                W,
                suppressed,
                split,
                alive=np.flatnonzero(~known["dead"].to_numpy(dtype=bool)),
                factor=factor,
                n_controls=n_controls,
                rng=generator,
            )
            tables |= _score_states(states, labels, split, metrics, n_neighbors, n_scored, generator, bar.update)

    options: dict[str, Any] = {"use_rep": use_rep, "key_added": added, "factor": factor}
    options["chosen_by"] = "name" if chosen is not None else _TRANSFER if n_suppressed == _TRANSFER else "batch_key"
    if split is not None:
        options |= sizes | scoring | optional | {"batch_key": batch_key, "bio_keys": as_list(bio_keys or [])}
        options |= {"label_keys": [column.name for column in labels], "bio_margin": bio_margin, "alpha": alpha}
        options |= {"holdout": holdout, "n_choosing": int((~split.held).sum()), "n_judging": int(split.held.sum())}
        options["rng"] = random.describe(rng)
    options["n_suppressed"] = len(suppressed)
    cleaned = {added: weaken(codes, X, W, suppressed, factor=factor)}
    out = record(adata, key, "suppress_features", {_keys.SUPPRESSION: tables}, options, copy=copy, obsm=cleaned)
    _report(tables, batch_key, added, key)
    return out


def _check_slot(adata: AnnData | MuData, key_added: str | None, use_rep: str, key: str) -> str:
    if key_added is None:
        return _keys.clean_key(use_rep)
    if not isinstance(key_added, str) or not key_added or "/" in key_added:
        msg = f"key_added must be a non-empty string without '/', found {key_added!r}."
        raise ValueError(msg)
    if key_added in (use_rep, _keys.sae_keys(key).codes):
        msg = f"key_added={key_added!r} would overwrite what the autoencoder works on. Choose another name."
        raise ValueError(msg)
    return key_added


def _check_without_batches(chosen: Any, **given: Any) -> None:
    if chosen is None:
        msg = "Nothing says what to suppress: name features, or give batch_key, the column of adata.obs with batches."
        raise ValueError(msg)
    needless = [f"{name}={value!r}" for name, value in given.items() if value]
    if needless:
        msg = f"{' and '.join(needless)} needs batch_key, the column of adata.obs with batches."
        raise ValueError(msg)


def _check_split(split: BatchSplit, batch_key: str, bio: Sequence[str]) -> None:
    """There are batches, on both sides, and labels that several of them have."""
    if len(split.names) < 2:
        msg = f"adata.obs[{batch_key!r}] has {len(split.names)} batches among cells with all labels: 2 are needed."
        raise ValueError(msg)
    if not split.held.any() or split.held.all():
        msg = f"{len(split.rows)} cells with a batch and all labels are too few to split."
        raise ValueError(msg)
    if split.overlap == 0:
        msg = (
            f"No label of {listing(bio)} has cells of two batches of {batch_key!r}: batch and biology cannot be "
            "separated. Name fewer or coarser bio_keys, or name the features to suppress yourself."
        )
        raise ValueError(msg)
    if split.overlap < _ENOUGH_OVERLAP:
        _logging.warning(
            f"Only {split.overlap:.0%} of the cells have labels of {listing(bio)} that several batches of "
            f"{batch_key!r} share: the others say nothing about batches."
        )


def _warn_without_biology(batch_key: str, *, labels: bool) -> None:
    judged = "" if labels else ", and without label_keys nothing shows what was lost"
    _logging.warning(
        f"No bio_keys: all that differs between batches of {batch_key!r} counts as batch, also cell types of which "
        f"they have other shares. No feature is spared for its biology{judged}. Name columns such as cell types in "
        "bio_keys"
    )


def _is_shared(column: Labels, split: BatchSplit) -> bool:
    if known_elsewhere(column.codes[split.rows], split.batches)[split.held].any():
        return True
    _logging.warning(f"No label of {column.name!r} is in two batches: it is not transferred.")
    return False


def _score_states(
    states: Iterator[JudgedEmbedding],
    labels: Sequence[Labels],
    split: BatchSplit,
    metrics: Sequence[str],
    n_neighbors: int,
    n_scored: int,
    rng: np.random.Generator,
    update: Any,
) -> dict[str, pd.DataFrame]:
    """Tables of the label transfer and of scib's scores, over all states."""
    pool = draw_rows(np.arange(len(split.rows)), _MOST_CELLS, rng)
    scored = draw_rows(np.flatnonzero(split.held[pool]), n_scored, rng)
    queries = np.isin(np.arange(len(pool)), scored)
    start: np.ndarray | None = None
    transfer: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for judged in states:
        start = judged.X if start is None else start  # the first state is the one before
        transfer += transfer_rows(judged, labels, split, pool, queries, start=start, n_neighbors=n_neighbors)
        for column in labels if metrics else ():
            codes = column.codes[split.rows[pool[scored]]]
            rows, codes = pool[scored][codes >= 0], codes[codes >= 0]
            about = {"label_key": column.name, "state": judged.state, "draw": judged.draw}
            scores += [
                about | row for row in scib_rows(metrics, judged.X[rows], start[rows], codes, split.batches[rows])
            ]
        update()
    return {"transfer": pd.DataFrame(transfer)} | ({"scib": pd.DataFrame(scores)} if scores else {})


def _report(tables: dict[str, pd.DataFrame], batch_key: str | None, added: str, key: str) -> None:
    table = tables["features"]
    msg = f"suppress_features: {int(table['suppressed'].sum())} of {len(table)} features suppressed"
    if batch_key is not None:
        msg += f" ({int(table['spared'].sum())} more depend on {batch_key!r} and are spared)"
        if not table["suppressed"].any():
            _logging.warning(f"No feature depends on {batch_key!r} more than on biology: the embedding stays as it is.")
    if "transfer" in tables:
        scores = tables["transfer"].groupby("state")["accuracy"].mean()
        msg += f"; accuracy of label transfer between batches: {scores[BEFORE]:.3f} before, {scores[AFTER]:.3f} after"
        msg += f", {scores[RANDOM]:.3f} without random features" if RANDOM in scores else ""
    _logging.info(f"{msg}; added obsm['{added}'] and uns['{key}']['{_keys.SUPPRESSION}']")
    if "transfer" in tables and table["suppressed"].any():
        _warn_of_transfer(float(scores[BEFORE]), float(scores[AFTER]))


def _warn_of_transfer(before: float, after: float) -> None:
    """What the label transfer cannot show, or shows against the result."""
    if after < before - _WORSE:
        _logging.warning(
            f"Labels transfer worse without these features ({before:.3f} before, {after:.3f} after): biology went with "
            "them. Name bio_keys, raise bio_margin, or suppress fewer (n_suppressed='transfer')"
        )
    elif before >= _CEILING:
        _logging.warning(
            f"Labels transfer between batches without suppression already ({before:.3f}): there is hardly anything to "
            "gain, and the transfer cannot show that suppression helps, only that it does no harm"
        )
