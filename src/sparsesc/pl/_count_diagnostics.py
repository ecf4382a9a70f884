from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sparsesc.get import count_diagnostics as read

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save

_COLORS = {"poisson": _style.BLUE, "nb": _style.ORANGE, "zinb": _style.GREEN, "lognormal": _style.PURPLE}
_NAMES = {
    "poisson": "Poisson",
    "nb": "negative binomial",
    "zinb": "zero-inflated NB",
    "lognormal": "rounded log-normal",
}


@plot_of("count_diagnostics")
def count_diagnostics(
    adata: AnnData | MuData,
    *,
    key: str = "count_diagnostics",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """How noisy the counts of genes are: variance and zeros by mean, and which distribution fits how many genes best.

    Returns
    -------
    a dictionary of the axes: ``"variance"``, ``"zeros"`` (observed less expected share of zeros) and ``"families"``

    See Also
    --------
    sparsesc.get.count_diagnostics : The tables behind the panels.

    Notes
    -----
    The dashed line is the variance of Poisson variables in cells of these sizes, the full line adds the median
    overdispersion. Rates may differ between the groups of cells that were named; the lines do not show that.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.simulate_programs(n_cells=200, n_genes=50, count_noise="poisson")
    >>> ssc.tl.count_diagnostics(adata)
    >>> axes = ssc.pl.count_diagnostics(adata, show=False)
    >>> list(axes)
    ['variance', 'zeros', 'families']
    """
    table, families = read(adata, table="genes", key=key), read(adata, table="families", key=key)
    summary = read(adata, table="summary", key=key).set_index("statistic")["value"]
    size = _utils.figure_size(figsize, 10.6, 3.4)
    fig, axes = _utils.panel_row(ax, size, ["variance", "zeros", "families"], width_ratios=[1.1, 1.1, 0.8])
    _variance(axes["variance"], table, summary)
    _zeros(axes["zeros"], table)
    _families(axes["families"], families)
    for panel in axes.values():
        _style.tidy(panel)
    return _utils.finish(fig, axes, name="count_diagnostics", ax=ax, show=show, save=save, return_fig=return_fig)


def _variance(ax: Axes, table: pd.DataFrame, summary: pd.Series) -> None:
    mean, variance = table["mean"].to_numpy(float), table["variance"].to_numpy(float)
    rasterized = _utils.rasterize(len(table))
    for family, color in _COLORS.items():
        best = (table["family"] == family).to_numpy()
        ax.scatter(mean[best], variance[best], s=6, color=color, alpha=0.5, linewidths=0, rasterized=rasterized)
    x = np.geomspace(mean.min(), mean.max(), 100)
    second = x**2 * (1 + summary["size_cv2"])  # mean square of the expected counts
    poisson = x + x**2 * summary["size_cv2"]
    ax.plot(x, poisson, color="black", lw=1, ls="--", label="Poisson")
    phi = float(summary["overdispersion"])
    if phi > 0:  # nan where no gene is expressed enough to tell
        ax.plot(x, poisson + phi * second, color="black", lw=1, label=f"overdispersion {phi:.2g}")
    ax.set(xscale="log", yscale="log", xlabel="Mean count", ylabel="Variance")
    _style.legend(ax, loc="upper left", handlelength=1.6)


def _zeros(ax: Axes, table: pd.DataFrame) -> None:
    mean, zeros = table["mean"].to_numpy(float), table["zeros"].to_numpy(float)
    rasterized = _utils.rasterize(len(table))
    for family in ("poisson", "lognormal", "nb"):
        excess = 100 * (zeros - table[f"zeros_{family}"].to_numpy(float))
        ax.scatter(mean, excess, s=6, color=_COLORS[family], alpha=0.5, linewidths=0, rasterized=rasterized)
        ax.scatter([], [], s=16, color=_COLORS[family], label=_NAMES[family])
    ax.axhline(0, color="black", lw=0.8, zorder=0)
    ax.set(xscale="log", xlabel="Mean count", ylabel="Zeros: observed - expected\n(% of cells)")
    _style.legend(ax, loc="best", handletextpad=0.1)


def _families(ax: Axes, families: pd.DataFrame) -> None:
    share = 100 * families["share"].to_numpy(float)
    y = np.arange(len(families))
    ax.barh(y, share, color=[_COLORS[name] for name in families.index], height=0.7)
    for place, value in zip(y, share, strict=True):
        ax.annotate(f"{value:.3g}%", (value, place), (3, 0), textcoords="offset points", va="center", fontsize="small")
    ax.set_yticks(y, [_style.wrap(_NAMES[name], 12) for name in families.index])
    ax.set_ylim(len(families) - 0.5, -0.5)
    ax.set_xlim(0, 1.25 * max(share.max(), 1e-9))
    ax.set_xlabel("Genes with the lowest BIC (%)")
