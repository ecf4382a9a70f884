from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sparsesc.get import rank_fidelity as read

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save


@plot_of("rank_fidelity")
def rank_fidelity(
    adata: AnnData | MuData,
    *,
    key: str = "rank_fidelity",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """What rank encodings keep of cell types: distances within and between types, neighbors, rules, and sparsity.

    Returns
    -------
    a dictionary of the axes: ``"distances"`` (median distance of every type and pair of types, over the median between
    types), ``"neighbors"`` (share of neighbors from the same type and batch, with what is expected by chance),
    ``"rules"`` (distance within over between under each rule) and ``"sparsity"`` (the same when counts are thinned, or
    by bins of detected genes where they were not)

    See Also
    --------
    sparsesc.get.rank_fidelity : The tables behind the panels.
    sparsesc.pp.rank_value_encode : Encodes cells as ranks.

    Notes
    -----
    Compare maps with maps: a UMAP pulls neighbors together, whatever it is made from.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.simulate_programs(n_cells=200, n_genes=100, n_types=4, count_noise="poisson")
    >>> ssc.tl.rank_fidelity(adata, "type", n_compared=20, n_pcs=10, n_boot=50)
    >>> axes = ssc.pl.rank_fidelity(adata, show=False)
    >>> list(axes)
    ['distances', 'neighbors', 'rules', 'sparsity']
    """
    summary = read(adata, table="summary", key=key)
    fig, grid = _utils.area(ax, _utils.figure_size(figsize, 10.4, 6.4), 2, 2, width_ratios=[1.15, 1])
    names = ("distances", "neighbors", "rules", "sparsity")
    axes = {name: fig.add_subplot(grid[divmod(i, 2)]) for i, name in enumerate(names)}
    _distances(axes["distances"], summary, read(adata, table="pairs", key=key))
    _neighbors(axes["neighbors"], read(adata, table="neighbors", key=key))
    _rules(axes["rules"], read(adata, table="rules", key=key))
    _sparsity(axes["sparsity"], read(adata, table="sparsity", key=key))
    for panel in axes.values():
        _style.tidy(panel)
    return _utils.finish(fig, axes, name="rank_fidelity", ax=ax, show=show, save=save, return_fig=return_fig)


def _distances(ax: Axes, summary: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Every type above the line of its measure, every pair of types below."""
    jitter = np.random.default_rng(0)  # heights only: points on top of one another would hide
    for y, row in enumerate(summary.itertuples()):
        table = pairs[pairs["measure"] == row.measure]
        for within, color, side in ((True, _style.ORANGE, -0.2), (False, _style.STEM, 0.2)):
            values = table.loc[table["within"].to_numpy(bool) == within, "distance"].to_numpy(float) / row.between
            ax.scatter(
                values,
                y + side + jitter.uniform(-0.13, 0.13, len(values)),
                s=9,
                color=color,
                alpha=0.7 if within else 0.4,
                linewidths=0,
                rasterized=_utils.rasterize(len(pairs)),
                label=("within a type" if within else "between types") if y == 0 else None,
            )
            ax.plot([np.nanmedian(values)] * 2, [y + side - 0.17, y + side + 0.17], color="black", lw=1.4)
    labels = [f"{name}\nAUROC {auroc:.2f}" for name, auroc in zip(summary["measure"], summary["auroc"], strict=True)]
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.75)
    ax.set_xlim(left=0)
    ax.set_xlabel("Median distance / median between types")
    marks = ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, handletextpad=0.2, borderpad=0.1, markerscale=2
    )
    for mark in filter(None, marks.legend_handles):
        mark.set_alpha(1)


def _neighbors(ax: Axes, table: pd.DataFrame) -> None:
    """Shares with intervals, and what chance gives."""
    kinds = [("same_group", "same type", _style.BLUE), ("same_batch", "same batch", _style.ORANGE)]
    for shift, (column, label, color) in zip((-0.12, 0.12), kinds, strict=True):
        if column not in table:
            continue
        y = np.arange(len(table)) + shift
        ax.hlines(y, table[f"{column}_low"], table[f"{column}_high"], color=color, lw=1.6)
        ax.scatter(table[column], y, s=30, color=color, zorder=3, label=label)
        ax.scatter(table[f"{column}_expected"], y, s=60, marker="|", color=color, label=f"{label}, by chance")
    ax.set_yticks(range(len(table)), table["measure"].astype(str))
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlim(0, 1.02)
    ax.set_xlabel("Share of neighbors")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, handletextpad=0.2, borderpad=0.1)


def _rules(ax: Axes, table: pd.DataFrame) -> None:
    y = np.arange(len(table))
    ax.hlines(y, table["ratio_low"], table["ratio_high"], color=_style.STEM, lw=1.6)
    ax.scatter(table["ratio"], y, s=30, color=_style.BLUE, zorder=3)
    ax.set_yticks(y, [_style.wrap(name, 40) for name in table["rule"]])
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlabel("Distance within / between types")


def _sparsity(ax: Axes, table: pd.DataFrame) -> None:
    """Lines over thinning; over bins of detected genes when nothing was thinned."""
    thinned = table[table["by"] == "thinning"]
    shown = thinned if len(thinned) else table
    colors = [_style.BLUE, _style.ORANGE, _style.GREEN, _style.PURPLE, _style.MUTED, "black"]
    for number, (name, part) in enumerate(shown.groupby("measure", sort=False)):
        ordered = part.sort_values("n_genes")
        color = colors[number % len(colors)]
        ax.fill_between("n_genes", "ratio_low", "ratio_high", data=ordered, color=color, alpha=0.15, lw=0)
        ax.plot("n_genes", "ratio", "o-", data=ordered, ms=4, color=color, label=str(name))
    ax.set_xlabel("Genes detected in the median cell " + ("(counts thinned)" if len(thinned) else "(bins of cells)"))
    ax.set_ylabel("Distance within / between")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, handletextpad=0.3, borderpad=0.1)
