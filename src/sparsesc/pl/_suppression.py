from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sparsesc._values import check_choice, check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.get import suppression as tables_of

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save

_FLOOR = 1e-3  # shares below are drawn here
# How the controls are drawn, and what they are called. Draws of random features are dots.
_CONTROLS = {
    "random_features": (_style.STEM, "o", "random features"),
    "matched_features": (_style.ORANGE, "o", "random features, matched"),
    "batch_means": (_style.GREEN, "D", "shift of batch means"),
}
_METRICS = ("accuracy", "macro_f1")
_SCIB = {
    "silhouette_label": "silhouette of labels",
    "nmi_cluster_labels_kmeans": "NMI of k-means",
    "ari_cluster_labels_kmeans": "ARI of k-means",
    "clisi_knn": "cLISI",
    "bras": "BRAS",
    "ilisi_knn": "iLISI",
    "kbet_per_label": "kBET",
    "graph_connectivity": "graph connectivity",
    "pcr_comparison": "PCR comparison",
}


@plot_of("suppress_features")
def suppression(
    adata: AnnData | MuData,
    *,
    key: str = "sae",
    label_key: str | None = None,
    metric: Literal["accuracy", "macro_f1"] = "accuracy",
    n_named: int = 5,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """What features know of batch and biology, and whether label transfer is better without some of them.

    Parameters
    ----------
    label_key
        Labels of the transfer. ``None``: the first.
    metric
        Score of the transfer.
    n_named
        Suppressed features to name, those first that know most of the batch.

    Returns
    -------
    a dictionary of the axes: ``"features"``, ``"transfer"`` (with labels), ``"scib"`` (where it was computed)

    Raises
    ------
    KeyError
        If there is no such sparse autoencoder or label, or nothing was suppressed.
    ValueError
        If features were suppressed without batches, there is no such metric, or an option is out of its range.

    See Also
    --------
    sparsesc.get.suppression : The tables behind the panels.

    Notes
    -----
    Suppressed features lie above the line, where they know a larger share of the batch than of biology (times
    `bio_margin`). In the other panels, look first at the dots: they show the effect of removing as many other features.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.suppress_features(
    ...     adata,
    ...     batch_key="phase",
    ...     bio_keys="bulk_labels",
    ...     label_keys="bulk_labels",
    ...     n_permutations=19,
    ...     n_controls=1,
    ... )
    >>> axes = ssc.pl.suppression(adata, show=False)
    >>> list(axes)
    ['features', 'transfer']
    """
    check_choice(metric, _METRICS, name="metric")
    if n_named:
        check_positive_int(n_named, name="n_named")
    features = tables_of(adata, table="features", key=key)
    if "information" not in features:
        msg = "Features were suppressed by name, without batches: there is nothing to compare. Give batch_key as well."
        raise ValueError(msg)
    slot = check.get_sae_slot(adata, key)
    stored, options = slot[_keys.SUPPRESSION], slot[_keys.PARAMS]["suppress_features"]
    parts: list[Literal["transfer", "scib"]] = [name for name in ("transfer", "scib") if name in stored]
    scores = {name: _of_label(tables_of(adata, table=name, key=key), label_key) for name in parts}
    n_rows = scores["transfer"]["batch"].nunique() if "transfer" in scores else 1
    size = _utils.figure_size(figsize, 4.2 + 3.6 * len(scores), 2.6 + 0.22 * min(max(n_rows, 3), 30))
    fig, axes = _utils.panel_row(ax, size, ["features", *scores])
    _draw_features(axes["features"], features, float(options["bio_margin"]), n_named)
    for i, (name, table) in enumerate(scores.items(), start=1):
        if name == "transfer":
            batches = [
                f"{_style.wrap(str(b), 22, 1)} (n={n:,})" for b, n in zip(table["batch"], table["n_cells"], strict=True)
            ]
            _draw_scores(axes[name], table.assign(value=table[metric], batch=batches), "batch", "mean")
            label = _style.wrap(str(table["label_key"].iloc[0]), 24, 1)
            title = "accuracy" if metric == "accuracy" else "macro F1"
            axes[name].set(xlabel=f"{title} of {label} from other batches")
        else:
            table = table.assign(metric=table["metric"].replace(_SCIB))
            _draw_scores(axes[name], table, "metric", None)
            n_bio = table.loc[table["about"] == "bio", "metric"].nunique()
            axes[name].axhline(n_bio - 0.5, color=_style.STEM, linewidth=0.8, zorder=0)
            axes[name].set(xlabel="biology above, batches below (1 is best)")
        if i == 1:
            handles, names = axes[name].get_legend_handles_labels()
            axes[name].legend(
                handles, names, frameon=False, fontsize="x-small", loc="lower center", bbox_to_anchor=(0.4, 1), ncols=2
            )
    return _utils.finish(fig, axes, name="suppression", ax=ax, show=show, save=save, return_fig=return_fig)


def _of_label(table: pd.DataFrame, label_key: str | None) -> pd.DataFrame:
    labels = table["label_key"].astype(str)
    return table[labels == _utils.known_names(label_key, list(labels.unique()), "label_key")[0]]


def _draw_features(ax: Axes, table: pd.DataFrame, bio_margin: float, n_named: int) -> None:
    """Share of the batch over share of biology; without labels, over the rank."""
    labeled = bool(table["bio_share"].notna().any())
    y = np.maximum(table["share"].to_numpy(), _FLOOR)
    x = np.maximum(table["bio_share"].to_numpy(), _FLOOR) if labeled else 1.0 + np.arange(len(y))
    kinds = {
        "neither": (~table["suppressed"] & ~table["spared"], _style.SILENT),
        "spared": (table["spared"], _style.BLUE),
        "suppressed": (table["suppressed"], _style.ORANGE),
    }
    for name, (mask, color) in kinds.items():
        rows = mask.to_numpy(dtype=bool)
        ax.scatter(x[rows], y[rows], s=16, color=color, linewidths=0, label=f"{name} ({rows.sum()})")
    ax.set(yscale="log", ylabel="share of batch known (within labels)" if labeled else "share of batch known")
    if labeled:
        ends = np.array([_FLOOR, 1.0])
        ax.plot(ends, bio_margin * ends, color=_style.STEM, linewidth=0.8, zorder=0)
        ax.set(xscale="log", xlabel="share of biology known (within batches)", xlim=(_FLOOR * 0.8, 1.2))
    else:
        ax.set(xlabel="rank")
    ax.set_ylim(_FLOOR * 0.8, 1.2)
    for turn, i in enumerate(np.flatnonzero(table["suppressed"])[:n_named]):
        side = 4 if turn % 2 else -4  # in turn, so that neighbors in order do not cover each other
        align = "left" if turn % 2 else "right"
        name, place = table["feature"].iloc[i], (x[i], y[i])
        ax.annotate(name, place, (side, 2), textcoords="offset points", fontsize="x-small", ha=align)
    ax.legend(frameon=False, fontsize="x-small", loc="lower center", bbox_to_anchor=(0.45, 1), ncols=3)
    _style.tidy(ax)


def _draw_scores(ax: Axes, table: pd.DataFrame, by: str, mean: str | None) -> None:
    """One row for each of `by`: from before to after, between the controls."""
    names = list(dict.fromkeys(table[by].astype(str)))
    part = table[["state", "draw", "value"]].assign(row=table[by].astype(str).map({n: i for i, n in enumerate(names)}))
    if mean is not None and len(names) > 1:
        total = part.groupby(["state", "draw"], sort=False, as_index=False)["value"].mean().assign(row=len(names))
        part = pd.concat([part, total])
        names.append(mean)
        ax.axhline(len(names) - 1.5, color=_style.STEM, linewidth=0.8, zorder=0)
    shifts = {"random_features": 0.22, "matched_features": -0.22, "batch_means": 0.0}
    for state, (color, marker, title) in _CONTROLS.items():
        rows = part[part["state"] == state]
        if len(rows):
            size = 9 if marker == "o" else 16
            y = rows["row"] + shifts[state]
            ax.scatter(rows["value"], y, s=size, color=color, marker=marker, linewidths=0, label=title, zorder=2)
    before, after = (part[part["state"] == state].set_index("row")["value"] for state in ("before", "after"))
    ax.hlines(before.index, before, after[before.index], color="black", linewidth=1, zorder=3)
    ax.scatter(before, before.index, s=30, facecolors="white", edgecolors="black", label="before", zorder=4)
    ax.scatter(after, after.index, s=30, color="black", linewidths=0, label="after", zorder=5)
    ax.set_yticks(
        range(len(names)), [_style.wrap(name.replace("nmi_ari_cluster_labels_", ""), 34, 1) for name in names]
    )
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0, labelsize="small")
    _style.tidy(ax)
