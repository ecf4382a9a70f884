from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from sparsesc._values import check_positive_int
from sparsesc.door import _checks as check

from . import _style, _utils

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save


def feature_density(
    adata: AnnData | MuData,
    *,
    key: str = "sae",
    bins: int = 30,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """How often features are active (log10 of the share of cells), how strongly, and how many never are.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder.
    key
        Name of the sparse autoencoder.
    bins
        Bars of the histogram.
    figsize
        Width and height in inches.
    ax
        Axes whose place both panels take.
    show
        Show the figure. ``None``: ``sc.settings.autoshow``.
    save
        ``True`` or a suffix saves to ``sc.settings.figdir`` as ``feature_density{suffix}``, as in scanpy;
        a ``Path``, or a string with a folder in it, is taken as it is.
    return_fig
        Return the figure.

    Returns
    -------
    The figure with ``return_fig=True``; else with ``show=False`` a dictionary of the axes, ``"density"`` (histogram)
    and ``"mean_active"`` (mean activation in the cells where a feature is active, one point a feature); else ``None``.
    `adata` stays as it is.

    Raises
    ------
    KeyError
        If there is no such sparse autoencoder.
    ValueError
        If an option is out of its range.

    Notes
    -----
    Features at the right, active in most cells, carry what cells share rather than what sets them apart; features at
    the left rest on a handful of cells. Neither end says whether a feature is meaningful.
    """
    bins = check_positive_int(bins, name="bins")
    table = check.get_feature_table(adata, key)
    density = table["density"].to_numpy(float)
    strength = table["mean_active"].to_numpy(float)
    alive = density > 0
    n_dead = int((~alive).sum())

    scale = _utils.text_scale()
    size = (4.6 * scale, 4.4 * scale) if figsize is None else figsize
    fig, grid = _utils.area(ax, size, 2, 1, height_ratios=[1, 1.4], **({} if ax is None else {"hspace": 0.1}))
    upper = fig.add_subplot(grid[0])
    lower = fig.add_subplot(grid[1], sharex=upper)
    ends = _edges(density[alive], bins)
    upper.hist(density[alive], bins=list(ends), color=_style.BLUE, edgecolor="white", linewidth=0.4)
    upper.set_xscale("log")
    dead = f"{n_dead} of {len(table)} dead ({n_dead / max(len(table), 1):.1%})"
    upper.set_title(dead, loc="right", size="small", color=_style.ORANGE if n_dead else _style.MUTED)
    if alive.any():
        median = float(np.median(density[alive]))
        upper.axvline(median, color="black", ls=":", lw=1.2, zorder=3)
        upper.set_title(f"median {median:.2%} of cells", loc="left", size="small", color=_style.MUTED)
    upper.set_ylabel("Features")
    upper.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    upper.tick_params(axis="x", labelbottom=False)

    lower.scatter(
        density[alive],
        strength[alive],
        s=14,
        color=_style.BLUE,
        alpha=0.6,
        linewidths=0,
        rasterized=_utils.rasterize(len(table)),
    )
    lower.set(xlabel="Share of cells where active", ylabel="Mean activation\n(active cells)")
    narrow = ends[-1] < 100 * ends[0]
    lower.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=8))
    lower.xaxis.set_minor_locator(NullLocator())
    lower.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    lower.set_ylim(bottom=0)
    lower.set_xlim(ends[0] / 1.15, ends[-1] * 1.15)
    for panel in (upper, lower):
        _style.tidy(panel)
    fig.align_ylabels([upper, lower])
    axes = {"density": upper, "mean_active": lower}
    return _utils.finish(fig, axes, name="feature_density", ax=ax, show=show, save=save, return_fig=return_fig)


def _edges(density: np.ndarray, bins: int) -> np.ndarray:
    """Bins of equal width in log10, with room at both ends."""
    low, high = (density.min(), density.max()) if len(density) else (1e-3, 1.0)
    if high < 1.25 * low:
        low, high = low / 3, high * 3
    edges = np.geomspace(low, high, bins + 1)
    edges[[0, -1]] = low, high  # as rounded, they could leave out the features at the ends
    return edges
