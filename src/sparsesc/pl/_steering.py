from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sparsesc._values import check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys

from . import _style, _utils
from ._docs import plot_of
from ._feature_umap import coordinates

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save

_STEERED = "steered"
# How each control is drawn, and what it is called; several draws become a band.
_CONTROLS: dict[str, tuple[str, str, str]] = {
    "random_direction": ("#7f7f7f", ":", "random directions"),
    "random_features": (_style.ORANGE, "--", "random features"),
    "difference_of_means": (_style.GREEN, "-", "difference of means"),
    "difference_of_means_within": (_style.GREEN, "-.", "difference within"),
}
_BINS = 14
_FAR = 0.95
_LEAST = 3  # cells behind an arrow


@plot_of("steer")
def steering(
    adata: AnnData | MuData,
    *,
    key: str = "sae",
    basis: str | None = "X_umap",
    n_genes: int = 15,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """Where steered cells go, how far from real cells that is, and which genes follow, each beside its controls.

    Parameters
    ----------
    basis
        Entry of ``obsm`` to draw arrows on; ``None`` leaves them out. A moved cell is drawn in the middle of those
        real cells that are its nearest neighbors in the steered embedding.
    n_genes
        Genes to show, largest absolute effects first.

    Returns
    -------
    a dictionary of the axes that were drawn: ``"embedding"``, ``"landed"`` (with groups), ``"distance"``, ``"genes"``
    (with a decoder)

    Raises
    ------
    KeyError
        If there is no such sparse autoencoder or basis, or it was not steered.
    ValueError
        If the steered embedding does not belong to these cells, or an option is out of its range.

    Notes
    -----
    Arrows average over the cells of a place, and an embedding of two dimensions distorts distances: read from them
    where cells go, not how far. Bands are the range of the random draws. The band behind the genes is twice the
    standard deviation of the effects of the random controls.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.steer(adata, groupby="bulk_labels", from_group="Dendritic", to_group="CD19+ B", doses=[0, 1])
    >>> axes = ssc.pl.steering(adata, show=False)
    >>> list(axes)
    ['embedding', 'landed', 'distance', 'genes']
    """
    n_genes = check_positive_int(n_genes, name="n_genes")
    tables, params = _result(adata, key)
    doses = pd.DataFrame(tables["doses"])
    place = None if basis is None else coordinates(adata, basis)
    effects = pd.DataFrame(tables["effects"]) if "effects" in tables else None
    parts = ["embedding"] if place is not None else []
    parts += ["landed"] if "landed" in doses else []
    parts += ["distance"]
    parts += ["genes"] if effects is not None else []
    scale = _utils.text_scale()
    size = ((0.4 + 3.3 * len(parts)) * scale, 3.4 * scale) if figsize is None else figsize
    fig, grid = _utils.area(ax, size, 1, len(parts))
    axes: dict[str, Axes] = {part: fig.add_subplot(grid[0, i]) for i, part in enumerate(parts)}
    if place is not None:
        _draw_arrows(axes["embedding"], adata, place[0], tables, params)
        axes["embedding"].set(xlabel=place[1][0], ylabel=place[1][1])
    if "landed" in axes:
        to_group = _style.wrap(str(params["to_group"]), 24, 1)
        _draw_doses(axes["landed"], doses, "landed", legend=True)
        axes["landed"].set(ylabel=f"share of cells among {to_group}", ylim=(-0.03, 1.03))
    _draw_doses(axes["distance"], doses, "percentile", legend="landed" not in axes)
    axes["distance"].axhline(_FAR, color=_style.STEM, linewidth=0.8, zorder=0)
    axes["distance"].text(
        0.02,
        _FAR - 0.01,
        f"{_FAR:.0%} of real cells are nearer",
        color=_style.MUTED,
        size="x-small",
        va="top",
        transform=axes["distance"].get_yaxis_transform(),
    )
    axes["distance"].set(ylabel="distance to real cells (percentile)", ylim=(-0.03, 1.03))
    if effects is not None:
        _draw_genes(axes["genes"], effects.head(n_genes))
    return _utils.finish(fig, axes, name="steering", ax=ax, show=show, save=save, return_fig=return_fig)


def _result(adata: AnnData | MuData, key: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Tables and options of the steering."""
    slot = check.get_sae_slot(adata, key)
    if _keys.STEERING not in slot:
        msg = f"Did not find adata.uns[{key!r}]['{_keys.STEERING}']. Run ssc.tl.steer first."
        raise KeyError(msg)
    return slot[_keys.STEERING], slot[_keys.PARAMS]["steer"]


def _draw_arrows(
    ax: Axes, adata: AnnData | MuData, place: np.ndarray, tables: Mapping[str, Any], params: Mapping[str, Any]
) -> None:
    """Cells, those of the target group, those that were moved, and the mean way of the cells of a place."""
    rows = _positions(adata, pd.DataFrame(tables["cells"])["cell"])
    if len(rows) and (rows < 0).all():
        msg = "None of the steered cells is in this adata. Run ssc.tl.steer on it."
        raise ValueError(msg)
    rows = rows[rows >= 0]
    points = _utils.rasterize(len(place))
    size = float(np.clip(9000 / max(len(place), 1), 1.5, 14))
    ax.scatter(place[:, 0], place[:, 1], s=size, color=_style.SILENT, linewidths=0, rasterized=points)
    if params.get("groupby") in adata.obs:
        to_group = str(params["to_group"])
        target = (adata.obs[params["groupby"]].astype(str) == to_group).to_numpy()
        ax.scatter(
            place[target, 0],
            place[target, 1],
            s=size,
            color=_style.GREEN,
            alpha=0.35,
            linewidths=0,
            rasterized=points,
            label=to_group,
        )
    if len(rows):
        starts, ends = _mean_places(adata, place, pd.DataFrame(tables["neighbors"]))
        ax.scatter(
            place[rows, 0],
            place[rows, 1],
            s=size,
            color=_style.BLUE,
            alpha=0.35,
            linewidths=0,
            rasterized=points,
            label="moved",
        )
        low, high = place.min(0), place.max(0)
        width = np.where(high > low, high - low, 1) / _BINS
        at = np.floor((starts - low) / width).astype(int)
        _, bins, counts = np.unique(at @ [1, 10_000], return_inverse=True, return_counts=True)
        mean = [np.stack([np.bincount(bins, v[:, i]) / counts for i in (0, 1)], axis=1) for v in (starts, ends)]
        kept = counts >= min(_LEAST, int(counts.max()))
        start, step = mean[0][kept], (mean[1] - mean[0])[kept]
        ax.quiver(
            *start.T,
            *step.T,
            angles="xy",
            scale_units="xy",
            scale=1,
            color="black",
            width=0.006,
            headwidth=4,
            minlength=0.5,
        )
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{len(rows)} cells moved", size="medium")
    if params.get("groupby") in adata.obs:
        legend = ax.legend(frameon=False, fontsize="x-small", loc="best", handletextpad=0.1, markerscale=2)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
    ax.spines[:].set_visible(False)


def _positions(adata: AnnData | MuData, names: pd.Series) -> np.ndarray:
    """Where cells of these names are; -1: nowhere."""
    if not adata.obs_names.is_unique:
        msg = (
            "Names of cells repeat, so moved cells cannot be drawn. Run adata.obs_names_make_unique() and steer again."
        )
        raise ValueError(msg)
    return adata.obs_names.get_indexer(names.astype(str))


def _mean_places(adata: AnnData | MuData, place: np.ndarray, near: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Where the neighbors of each cell are on average, before and after: a cell that does not move has no arrow."""
    neighbor = _positions(adata, near["neighbor"])
    known = (neighbor >= 0) & (_positions(adata, near["cell"]) >= 0)
    means = pd.DataFrame(place[neighbor[known]]).groupby(
        [near["cell"].astype(str).to_numpy()[known], near["state"].astype(str).to_numpy()[known]]
    )
    ways = means.mean().unstack().dropna()
    return tuple(ways.xs(state, axis=1, level=1).to_numpy() for state in ("before", "after"))


def _draw_doses(ax: Axes, doses: pd.DataFrame, column: str, *, legend: bool) -> None:
    """The steered cells as a line with points, controls as lines, several draws as bands."""
    for control, rows in doses.groupby("control", sort=False):
        if control == _STEERED:
            continue
        color, style, name = _CONTROLS.get(str(control), (_style.MUTED, "-", str(control)))
        summary = rows.groupby("dose")[column].agg(["min", "mean", "max"])
        ax.plot(summary.index, summary["mean"], color=color, linestyle=style, linewidth=1.2, label=name)
        if rows["draw"].nunique() > 1:
            ax.fill_between(summary.index, summary["min"], summary["max"], color=color, alpha=0.15, linewidth=0)
    rows = doses[doses["control"] == _STEERED]
    ax.plot(rows["dose"], rows[column], color=_style.BLUE, marker="o", markersize=4, linewidth=1.8, label="steered")
    ax.axvline(1, color=_style.STEM, linewidth=0.8, zorder=0)
    ax.set(xlabel="dose")
    _style.tidy(ax)
    if legend:
        handles, names = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], names[::-1], frameon=False, fontsize="x-small", loc="best")


def _draw_genes(ax: Axes, effects: pd.DataFrame) -> None:
    """Mean effects with their spread over cells, in front of the band of the random controls."""
    y = np.arange(len(effects))
    if "control_sd" in effects:
        band = 2 * effects["control_sd"].to_numpy()
        ax.barh(y, 2 * band, left=-band, height=0.8, color=_style.SILENT)
        ax.set_title("gray: random controls ± 2 sd", size="small", color=_style.MUTED)
    logfc = effects["logfc"].to_numpy()
    colors = np.where(logfc > 0, _style.BLUE, _style.ORANGE)
    ax.hlines(y, logfc - effects["sd"], logfc + effects["sd"], color=colors, linewidth=1)
    ax.scatter(logfc, y, s=22, color=colors, zorder=3)
    ax.axvline(0, color=_style.STEM, linewidth=0.8, zorder=0)
    ax.set_yticks(y, list(effects["gene"].astype(str)))
    ax.tick_params(axis="y", length=0, labelsize="small")
    ax.set(xlabel="decoded effect (log2)", ylim=(len(effects) - 0.5, -0.5))
    _style.tidy(ax)
