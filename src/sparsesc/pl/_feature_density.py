from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from sparsesc._values import check_positive_int
from sparsesc.door import _checks as check

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save


@plot_of("fit_sae")
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
    bins
        Bars of the histogram.

    Returns
    -------
    a dictionary of the axes: ``"density"`` (histogram) and ``"mean_active"`` (mean activation in the cells where a
    feature is active, one point for each feature)

    See Also
    --------
    sparsesc.get.features : The table of the features, with these two columns.
    sparsesc.pl.training : How the share of dead features changed during training.

    Notes
    -----
    Features at the right, active in most cells, carry what cells share rather than what sets them apart; features at
    the left rest on a handful of cells. Neither end says whether a feature is meaningful.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> axes = ssc.pl.feature_density(adata, show=False)
    >>> list(axes)
    ['density', 'mean_active']
    """
    bins = check_positive_int(bins, name="bins")
    table = check.get_feature_table(adata, key)
    density = table["density"].to_numpy(float)
    strength = table["mean_active"].to_numpy(float)
    alive = density > 0
    n_dead = int((~alive).sum())

    size = _utils.figure_size(figsize, 4.6, 4.4)
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

    rasterized = _utils.rasterize(len(table))
    lower.scatter(
        density[alive], strength[alive], s=14, color=_style.BLUE, alpha=0.6, linewidths=0, rasterized=rasterized
    )
    lower.set(xlabel="Share of cells where active", ylabel="Mean activation\n(active cells)")
    narrow = ends[-1] < 100 * ends[0]
    lower.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=8))
    lower.xaxis.set_minor_locator(NullLocator())
    lower.xaxis.set_major_formatter(_style.percent)
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
