"""Autoencoders of a sweep side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.ticker import NullLocator, ScalarFormatter

from sparsesc._values import as_list, check_positive_int, listing

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ._utils import Drawn, Save

_TITLES = {
    "fvu": "Unexplained variance (FVU)",
    "dead_fraction": "Dead features",
    "stability": "Stability over seeds",
    "cosine": "Cosine with the cell",
    "shrinkage": "Shrinkage",
    "seconds": "Seconds of training",
}
_SHARES = ("fvu", "dead_fraction", "stability")
_NEEDED = ("architecture", "n_features", "k", "l0")
_MARKERS = "osD^vPX*"
_LOGARITHMIC = 3.0  # L0 over a wider range is easier to read on a log scale
_LEAST = 0.04  # upper end of the axis at least, so that a tiny share looks tiny


@plot_of("sweep")
def sweep(
    table: pd.DataFrame,
    metrics: str | Sequence[str] | None = None,
    *,
    ncols: int = 3,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """Metrics of many autoencoders against the active features per cell, one panel for each metric.

    Parameters
    ----------
    metrics
        Columns of the table, each a panel. ``None``: ``"fvu"``, ``"dead_fraction"``, and ``"stability"`` where there
        were several seeds.

    Returns
    -------
    the axes, or a list of them for several metrics

    Raises
    ------
    KeyError
        If `table` is not the table of a sweep, or has no such column.
    TypeError
        If `table` is not a DataFrame.

    See Also
    --------
    sparsesc.pl.training : Training curves of one autoencoder.

    Notes
    -----
    Every point is a fit; a line joins the means over seeds of one architecture and width. The lower left of the first
    panel is the frontier, but a lower FVU alone is no reason to prefer a code (see :func:`sparsesc.tl.sweep`).
    Crosses in the panel of stability are random directions in place of the features.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> table = ssc.tl.sweep(adata, use_rep="X_pca", k=[4, 8], max_steps=20)
    >>> axes = ssc.pl.sweep(table, show=False)
    >>> [ax.get_title() for ax in axes]
    ['Unexplained variance (FVU)', 'Dead features']
    """
    if not isinstance(table, pd.DataFrame):
        msg = f"pl.sweep draws the table that ssc.tl.sweep returns, found {type(table).__name__}."
        raise TypeError(msg)
    names = [name for name in _SHARES if name in table] if metrics is None else as_list(metrics)
    missing = [name for name in (*_NEEDED, *names) if name not in table]
    if missing or not names or table.empty:
        msg = f"The table has no {listing(missing or list(_TITLES))}. Columns: {listing(list(table))}."
        raise KeyError(msg)
    ncols = check_positive_int(ncols, name="ncols")
    fig, axes = _utils.panels(len(names), ncols, _utils.panel_size((3.4, 2.8)), ax)
    kinds = list(table.groupby(["architecture", "n_features"], sort=True, observed=True))
    for name, axis in zip(names, axes, strict=True):
        for i, ((architecture, width), rows) in enumerate(kinds):
            color, mark = f"C{i % 10}", _MARKERS[i % len(_MARKERS)]
            mean = rows.groupby("k")[["l0", name]].mean().sort_values("l0")
            axis.plot(mean["l0"], mean[name], color=color, lw=1.2, label=f"{architecture}, {width}")
            axis.plot(rows["l0"], rows[name], mark, color=color, ms=5, mec="white", mew=0.5, clip_on=False, zorder=3)
            if name == "stability" and "stability_random" in table:
                axis.plot(rows["l0"], rows["stability_random"], "x", color=color, ms=4, alpha=0.6)
        axis.set_title(_TITLES.get(name, name), size="medium")
        axis.set_xlabel("Active features per cell")
        if table["l0"].max() > _LOGARITHMIC * table["l0"].min() > 0:
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter(ScalarFormatter())
            axis.xaxis.set_minor_locator(NullLocator())
        if name in _SHARES:
            axis.set_ylim(0, max(1.08 * float(np.nanmax(table[name])), _LEAST))
        if name == "dead_fraction":
            axis.yaxis.set_major_formatter(_style.percent)
        _style.tidy(axis)
    _style.legend(axes[0])
    return _utils.finish(fig, axes, name="sweep", ax=ax, show=show, save=save, return_fig=return_fig)
