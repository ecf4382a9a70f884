from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc import _random as random
from sparsesc._values import as_list, check_choice, check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._slots import record
from sparsesc.stats.features._manifold import Manifold

from ._gene_effects import decode_layer, enriched_sets, gene_effects
from ._moves import (
    MODES,
    STEERED,
    Groups,
    apply_changes,
    change_table,
    control_moves,
    dose_table,
    landing_table,
    neighbor_table,
    plan_changes,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc._random import RNGLike, SeedLike

_REFERENCE = 20_000  # real cells among which neighbors are searched
_MOST_LABELS = 200


def steer(
    adata: AnnData | MuData,
    features: str | int | Sequence[str | int] | Mapping[str | int, float] | None = None,
    *,
    key: str = "sae",
    mode: Literal["set", "scale", "add", "ablate"] = "set",
    groupby: str | None = None,
    from_group: str | None = None,
    to_group: str | None = None,
    within: str | None = None,
    n_steered: int = 1,
    cells: str | Sequence[bool] | np.ndarray | None = None,
    reference_cells: str | Sequence[bool] | np.ndarray | None = None,
    decoder: Any = None,
    layer: str | None = None,
    net: pd.DataFrame | Mapping[str, Any] | str | Path | None = None,
    min_size: int = 5,
    max_size: int = 500,
    doses: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
    n_controls: int = 5,
    n_neighbors: int = 15,
    n_scored: int = 1000,
    label_keys: str | Sequence[str] | None = None,
    layer_added: str | None = None,
    rng: SeedLike | RNGLike | None = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Change the activation of features in cells, and see where the cells go and which genes follow.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder.
    features
        Features to change: a name or position, several, or ``{name: value}``. ``None``: those that carry most of the
        difference between the groups, `n_steered` of them in each stratum of `within`.
    key
        Name of the sparse autoencoder.
    mode
        ``"set"``: to the given value, or to the mean in `to_group`. ``"scale"``: times the value. ``"add"``: plus the
        value, or plus the difference of the means of both groups. ``"ablate"``: to 0. Activations never fall below 0.
    groupby
        Column of ``obs`` with groups, to make cells of one group similar to another.
    from_group
        Group to move. ``None``: all cells that have a group and are not in `to_group`.
    to_group
        Group to imitate.
    within
        Column of ``obs`` (cell types, say): groups are compared within each of its categories.
    n_steered
        How many features to choose when none are named.
    cells
        Cells to move: a boolean column of ``obs`` or one value per cell. ``None``: those of `from_group`, or all. With
        `groupby`, only cells of `from_group` move.
    reference_cells
        Cells that choose features and give means, in the same form. ``None``: all. Name other donors than those in
        `cells`, so that the cells that are judged did not choose the features.
    decoder
        From the embedding to genes: see :func:`sparsesc.decoders.as_decoder`. ``None``: the principal components for
        ``X_pca``, otherwise no genes are decoded.
    layer
        With principal components: layer that they were computed from, instead of ``X``.
    net
        Gene sets to test among the decoded effects, as in :func:`feature_enrichment`.
    min_size, max_size
        Sizes of the gene sets to keep.
    doses
        Multiples of the move to score; 1 is always among them.
    n_controls
        Random directions, and random sets of features, to compare with: of the same length for every cell.
    n_neighbors
        Neighbors among the real cells that say where a moved cell is.
    n_scored
        At most this many moved cells are scored and decoded, drawn by `rng`.
    label_keys
        Further columns of ``obs`` whose labels are counted among the neighbors, besides `groupby` and `within`.
    layer_added
        Name of a layer for the decoded expression of all cells after steering; dense, on the scale of the decoder.
    rng
        Draws controls and cells.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``obsm["{use_rep}_steered"]``
        The embedding at dose 1, float32; only the chosen cells differ.
    ``uns[key]["steering"]``
        A dict of tables:

        `features`: for each stratum and feature the means `before` and `after`, `n_cells` and `share_of_difference`
        (share of the difference between the groups that the change of the feature covers; NaN without groups).

        `doses`: for each `control` (``"steered"``, ``"random_direction"``, ``"random_features"``, and with groups
        ``"difference_of_means"`` and ``"difference_of_means_within"``, the plain shift by the difference of the two
        means at its full length), `draw` and `dose`: `norm` (mean length of the move), `distance` (median over cells of
        the mean distance to their real neighbors), `percentile` (where that lies among real cells, 0 to 1, median),
        `off_manifold` (share of cells farther away than 95 % of the real ones) and, with groups, `neighbors` (share of
        `to_group` among neighbors) and `landed` (share of cells with more than half of them).

        `landing`: for each label the share of cells that have most neighbors of each `category`, in the `state`
        ``"before"`` and ``"after"``.

        `cells`: the `cell` (its name) and `norm` (length of its move) of every cell that moved. `neighbors`: the
        nearest real cells of the moved cells that were scored, at dose 1: `state` (``"before"``, ``"after"``), `cell`,
        `neighbor` (names).

        With a decoder `effects`: `gene`, `logfc` (log2, at dose 1, mean over cells), `sd` (over cells), `n_cells`,
        `control_sd` (of the mean effect of the random controls) and `score` (`logfc` over it), largest absolute
        effect first; `gene_doses`: `gene`, `dose`, `logfc` of the top genes; and with `net` also `enrichment`: `term`,
        `score`, `pval`, `padj`, `n_genes`, `genes`, of `logfc` as in ``feature_enrichment(method="ulm")``.
    ``uns[key]["params"]["steer"]``
        The options of the call, and `n_cells` to move.
    ``layers[layer_added]``
        If requested: decoded expression, 0 for genes that the decoder does not know.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or no such feature, column or layer.
    TypeError
        If `cells` or `reference_cells` are not boolean, or `decoder` cannot decode.
    ValueError
        If neither features nor groups are named, values are missing or negative, a group does not exist, there is no
        cell to move, or an option is out of its range.

    See Also
    --------
    sparsesc.tl.suppress_features : take batch features out of the embedding of all cells.
    sparsesc.pl.steering : draw where the cells went, and the genes, beside the controls.
    sparsesc.tl.feature_association : find the features of a group.
    sparsesc.decoders.as_decoder : from an embedding to genes.

    Notes
    -----
    A cell at :math:`x` with the code :math:`f` moves to

    .. math:: x' = x + D(f') - D(f) = x + \sum_{i \in S} (f'_i - f_i)\, w_i ,

    where :math:`D` is the decoder of the autoencoder, :math:`f'` the changed code, :math:`S` the steered features and
    :math:`w_i` the decoder direction of feature :math:`i`: what the features do not describe stays as it is. Between
    two groups with the means :math:`\bar f^{from}, \bar f^{to}` of the codes, and :math:`g` the difference of the means
    of the embedding, the share of the difference that feature :math:`i` covers is

    .. math:: s_i = (\bar f^{to}_i - \bar f^{from}_i) \frac{w_i \cdot g}{g \cdot g} .

    Read every number beside its controls. A random direction of the same length shows how far a cell goes by being
    moved at all. The plain difference of means needs no features and is a strong competitor, above all `within` types:
    steering by few features is useful for what it says about them, and for changing one thing at a time.

    One feature or several: features of the default fit share a response, because they start at the centers of cells
    before and after it (one is lost where another is gained) and because noise in the training keeps activations
    modest. In blood cells with interferon, three features within types moved over 90 % of the control cells to
    stimulated ones, one feature less than half of them (``benchmarks/steering.md``). Take two or three features, or
    look at the doses above 1. To steer by a single feature, fit for it: a narrow code with broad features
    (``n_features=64``, ``k=4``, ``full_width_weight=0.2``), or for that alone ``noise=0``, ``max_steps=6000``,
    ``patience=None``.

    When not to trust it: the decoder has never seen a cell that lands off the manifold, and its genes are
    extrapolation; look at `percentile`. Decoded effects are what the model believes: a correlation in the data becomes
    an effect here, whether or not one would follow in an experiment (of 48 transcription factors tested in a published
    study, three features were causally specific). Random controls are of the same length, but not along directions
    in which the data vary. Cells are not replicates, so read `pval` of gene sets as a ranking.

    References
    ----------
    Bricken et al. (2023), Towards Monosemanticity (features as directions to act on). Templeton et al. (2024), Scaling
    Monosemanticity (clamping features, with the error of the autoencoder added back).

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> groups = {"groupby": "bulk_labels", "from_group": "Dendritic", "to_group": "CD14+ Monocyte"}
    >>> ssc.tl.steer(adata, n_steered=3, **groups)
    >>> adata.obsm["X_pca_steered"].shape
    (700, 50)

    More dendritic cells land among monocytes than after a random move of the same length:

    >>> doses = adata.uns["sae"]["steering"]["doses"]
    >>> landed = doses[doses["dose"] == 1].groupby("control")["landed"].mean()
    >>> bool(landed["steered"] > landed["random_direction"])
    True
    """
    check_choice(mode, MODES, name="mode")
    for value, name in ((n_steered, "n_steered"), (n_neighbors, "n_neighbors"), (n_scored, "n_scored")):
        check_positive_int(value, name=name)
    if n_controls:
        check_positive_int(n_controls, name="n_controls")
    multiples = _check_doses(doses)
    table = check.get_feature_table(adata, key)
    names, values = _check_features(adata, features, key, mode=mode, groupby=groupby)
    use_rep = str(check.get_sae_slot(adata, key)[_keys.PARAMS]["use_rep"])
    X = check.get_rep(adata, use_rep)
    codes = check.get_codes(adata, key)
    W = np.asarray(check.get_sae_slot(adata, key)[_keys.WEIGHTS]["W_dec"], dtype=np.float64)
    reference = _mask(adata, reference_cells, "reference_cells")
    groups = Groups.read(adata, groupby, from_group, to_group, within, reference)
    chosen = _mask(adata, cells, "cells")
    rows = np.flatnonzero(chosen if groups is None else chosen & groups.source)
    if not len(rows):
        msg = "There is no cell to move: cells and from_group leave none."
        raise ValueError(msg)
    labels = _label_columns(adata, label_keys, groupby, within)
    if layer_added is not None and (type(adata).__name__ == "MuData" or (decoder is None and use_rep != "X_pca")):
        msg = "layer_added needs an AnnData and a decoder: pass decoder=."
        raise ValueError(msg)
    decodes = _resolve_decoder(adata, decoder, use_rep, layer)
    if net is not None and decodes is None:
        msg = f"net needs decoded genes, but there is no decoder for {use_rep!r}: pass decoder=."
        raise ValueError(msg)

    generator = random.as_generator(rng)
    changes = plan_changes(
        codes,
        X,
        W,
        rows=rows,
        features=None if names is None else table.index.astype(str).get_indexer(names),
        values=values,
        n_steered=n_steered,
        mode=mode,
        groups=groups,
        reference=reference,
    )
    moved = apply_changes(X, changes, W)
    scored = rows if len(rows) <= n_scored else np.sort(generator.choice(rows, n_scored, replace=False))
    moves = {(STEERED, 0): moved[scored].astype(np.float64) - X[scored]}
    moves |= control_moves(
        moves[STEERED, 0],
        changes,
        scored,
        X=X,
        W=W,
        alive=np.flatnonzero(~table["dead"].to_numpy(dtype=bool)),
        groups=groups,
        reference=reference,
        n_controls=n_controls,
        rng=generator,
    )
    real = np.arange(len(X))
    if len(X) > _REFERENCE:
        real = np.sort(generator.choice(len(X), _REFERENCE, replace=False))
    manifold = Manifold(X[real], n_neighbors=n_neighbors)
    home = np.full(len(X), -1)
    home[real] = np.arange(len(real))
    compared = real if len(real) <= n_scored else np.sort(generator.choice(real, n_scored, replace=False))
    manifold.set_real(X[compared], home[compared])
    states = {"before": X[scored], "after": moved[scored]}
    neighbors = {state: manifold.neighbors(place, home[scored])[1] for state, place in states.items()}
    norm = np.linalg.norm(moved - X, axis=1)
    shown = norm[scored] > 0
    is_target = None if groups is None else groups.target[real]
    tables: dict[str, pd.DataFrame] = {
        "features": change_table(changes, table.index),
        "doses": dose_table(manifold, X[scored], home[scored], moves, multiples, is_target),
        "cells": pd.DataFrame({"cell": adata.obs_names[norm > 0].astype(str), "norm": norm[norm > 0]}),
        "neighbors": neighbor_table(
            {state: index[shown] for state, index in neighbors.items()},
            adata.obs_names[scored[shown]],
            adata.obs_names[real],
        ),
    }
    if labels:
        tables["landing"] = landing_table(neighbors, {name: column[real] for name, column in labels.items()})
    attributes: dict[str, Any] = {"obsm": {_keys.steered_key(use_rep): moved}}
    if decodes is not None:
        start = X[scored].astype(np.float64)
        tables["effects"], tables["gene_doses"] = gene_effects(
            decodes, adata.obs_names[scored], start, moves, multiples
        )
        if net is not None:
            tables["enrichment"] = enriched_sets(tables["effects"], net, min_size=min_size, max_size=max_size)
        if layer_added is not None:
            attributes["layers"] = {layer_added: decode_layer(adata, decodes, moved)}
    options = {
        "mode": mode,
        "use_rep": use_rep,
        "groupby": groupby,
        "from_group": from_group,
        "to_group": to_group,
        "within": within,
        "decoder": None if decodes is None else type(decodes).__name__,
        "layer_added": layer_added,
        "values": values,
        "n_cells": len(rows),
        "n_scored": len(scored),
        "n_neighbors": n_neighbors,
        "n_controls": n_controls,
        "rng": random.describe(rng),
    }
    out = record(adata, key, "steer", {_keys.STEERING: tables}, options, copy=copy, **attributes)
    _report(tables["doses"], len(rows), key, use_rep)
    return out


def _check_doses(doses: Sequence[float]) -> np.ndarray:
    values = np.atleast_1d(np.asarray(doses, dtype=np.float64))
    if values.ndim != 1 or not np.isfinite(values).all():
        msg = f"doses must be finite numbers, found {doses!r}."
        raise ValueError(msg)
    return np.unique(np.append(values, 1.0))


def _check_features(
    adata: AnnData | MuData, features: Any, key: str, *, mode: str, groupby: str | None
) -> tuple[list[str] | None, np.ndarray | None]:
    """Names and values of the features; ``None`` where the groups decide."""
    if features is None:
        if groupby is None or mode not in ("set", "add"):
            msg = (
                "No features named. Name some, or give groupby and to_group with mode 'set' or 'add': then those that "
                "carry most of the difference are chosen."
            )
            raise ValueError(msg)
        return None, None
    if not isinstance(features, Mapping):
        if mode == "scale":
            msg = "mode='scale' needs values: features={'sae_1': 2.0}."
            raise ValueError(msg)
        if mode in ("set", "add") and groupby is None:
            msg = f"mode={mode!r} needs values, features={{'sae_1': 2.0}}, or groupby and to_group to take them from."
            raise ValueError(msg)
        return check.feature_names(adata, features, key), None
    if mode == "ablate":
        msg = "mode='ablate' takes no values: every feature becomes 0. Pass a list of names."
        raise ValueError(msg)
    names = check.feature_names(adata, list(features), key)
    values = np.array([features[f] for f in features], dtype=np.float64)
    if len(values) != len(names):
        msg = "A feature is named twice, by its name and by its position. Name it once."
        raise ValueError(msg)
    if not np.isfinite(values).all() or (mode != "add" and (values < 0).any()):
        msg = f"Values must be finite{'' if mode == 'add' else ' and not negative (codes are not)'}, found {values}."
        raise ValueError(msg)
    return names, values


def _mask(adata: AnnData | MuData, cells: Any, name: str) -> np.ndarray:
    """One boolean per cell."""
    if cells is None:
        return np.ones(adata.n_obs, bool)
    what = f"adata.obs[{cells!r}]" if isinstance(cells, str) else name
    values = np.asarray(check.get_obs_column(adata, cells) if isinstance(cells, str) else cells)
    if values.dtype != bool:
        msg = f"{what} must be boolean, one value per cell, found {values.dtype}."
        raise TypeError(msg)
    if values.shape != (adata.n_obs,):
        msg = f"{what} must have one value for each of {adata.n_obs} cells, found shape {values.shape}."
        raise ValueError(msg)
    if not values.any():
        msg = f"{what} is False for all cells."
        raise ValueError(msg)
    return values


def _label_columns(
    adata: AnnData | MuData, label_keys: str | Sequence[str] | None, groupby: str | None, within: str | None
) -> dict[str, pd.Categorical]:
    columns = {}
    for name in dict.fromkeys([*(n for n in (groupby, within) if n is not None), *as_list(label_keys or [])]):
        columns[name] = pd.Categorical(check.get_obs_column(adata, name).astype(object))
        n = len(columns[name].categories)
        if n > _MOST_LABELS:
            msg = f"adata.obs[{name!r}] has {n} values: too many to be labels. Name another column."
            raise ValueError(msg)
    return columns


def _resolve_decoder(adata: AnnData | MuData, decoder: Any, use_rep: str, layer: str | None) -> Any:
    from sparsesc.decoders import as_decoder

    components = use_rep == "X_pca" and "PCs" in getattr(adata, "varm", {}) and getattr(adata, "X", None) is not None
    if decoder is None and not components:
        _logging.hint(f"no genes: pass decoder= to see what {use_rep!r} decodes to")
        return None
    return as_decoder(adata, decoder, use_rep=use_rep, layer=layer)


def _report(doses: pd.DataFrame, n_cells: int, key: str, use_rep: str) -> None:
    full = doses[doses["dose"] == 1].groupby("control", sort=False).mean(numeric_only=True)
    msg = f"steer: {n_cells} cells moved by {full.loc[STEERED, 'norm']:.2f}"
    msg += f", percentile of distance {full.loc[STEERED, 'percentile']:.2f}"
    if "landed" in full:
        others = ", ".join(f"{name} {value:.0%}" for name, value in full["landed"].items() if name != STEERED)
        msg += f"; {full.loc[STEERED, 'landed']:.0%} land among the other group ({others})"
    _logging.info(f"{msg}; added obsm['{_keys.steered_key(use_rep)}'] and uns['{key}']['{_keys.STEERING}']")
