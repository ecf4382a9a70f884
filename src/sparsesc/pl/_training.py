from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from sparsesc._values import as_list, check_choice, check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save

_TITLES = {
    "fvu": "Unexplained variance (FVU)",
    "l0": "Active features per cell (L0)",
    "dead_fraction": "Dead features",
    "lr": "Learning rate",
    "seconds": "Seconds",
}
_LEAST = {"dead_fraction": 0.04}  # upper end of the axis at least, so that a tiny share looks tiny
_LOGARITHMIC = 3.0  # an FVU that falls by this factor is easier to read on a log scale


@plot_of("fit_sae")
def training(
    adata: AnnData | MuData,
    metrics: str | Sequence[str] | None = None,
    *,
    key: str = "sae",
    ncols: int = 4,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """Training curves of a sparse autoencoder, one panel for each metric.

    Parameters
    ----------
    metrics
        ``"fvu"`` (training and validation), ``"l0"``, ``"dead_fraction"``, ``"lr"``, ``"seconds"``, or several.
        ``None``: the first four.

    Returns
    -------
    the axes, or a list of them for several metrics

    Raises
    ------
    KeyError
        If there is no such sparse autoencoder, or it has no history here (it was applied to these cells, not fitted).
    ValueError
        If a metric is unknown, or an option is out of its range.

    See Also
    --------
    sparsesc.pl.feature_density : How often the trained features are active.
    sparsesc.pl.sweep : Many autoencoders side by side.

    Notes
    -----
    FVU is the fraction of variance unexplained; the ring marks the epoch whose state was kept. The curves say whether
    training has converged, not whether features mean anything: a code of random directions also explains variance.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> axes = ssc.pl.training(adata, ["fvu", "l0"], show=False)
    >>> [ax.get_title() for ax in axes]
    ['Unexplained variance (FVU)', 'Active features per cell (L0)']
    """
    table = check.get_table(adata, key, _keys.HISTORY)
    names = list(_TITLES)[:4] if metrics is None else as_list(metrics)
    for name in names:
        check_choice(name, _TITLES, name="metric")
    ncols = check_positive_int(ncols, name="ncols")
    params = check.get_sae_slot(adata, key)[_keys.PARAMS]

    fig, axes = _utils.panels(len(names), ncols, _utils.panel_size((3.2, 2.6)), ax)
    for axis, name in zip(axes, names, strict=True):
        if name == "fvu":
            _draw_fvu(axis, table, params.get("best_epoch"))
        else:
            # not clipped: a curve along 0 would hide behind the axis
            axis.plot(table["epoch"], table[name], color=_style.BLUE, marker=_marker(table), clip_on=False, zorder=3)
            axis.set_ylim(0, 1.15 * max(_LEAST.get(name, 0.0), float(table[name].max())) or 1.0)
        if name == "l0" and params.get("k") is not None:
            k, coords = float(params["k"]), ("axes fraction", "data")
            style: dict[str, Any] = {"color": _style.MUTED, "size": "small", "ha": "right"}
            axis.axhline(k, color=_style.MUTED, ls=":", lw=1, zorder=0)
            axis.annotate(f"k = {params['k']}", (1, k), (-2, 3), xycoords=coords, textcoords="offset points", **style)
        if name == "dead_fraction":
            axis.yaxis.set_major_formatter(_style.percent)
        if name == "lr":
            axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
        axis.set_xlabel("Epoch")
        axis.set_title(_TITLES[name], size="medium")
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        _style.tidy(axis)
    return _utils.finish(fig, axes, name="training", ax=ax, show=show, save=save, return_fig=return_fig)


def _draw_fvu(ax: Axes, table: pd.DataFrame, best: int | None) -> None:
    curves = {
        "training": (table["train_fvu"].to_numpy(float), _style.BLUE, "--"),
        "validation": (table["validation_fvu"].to_numpy(float), _style.ORANGE, "-"),
    }
    epochs = table["epoch"].to_numpy()
    for label, (values, color, style) in curves.items():
        if np.isfinite(values).any():  # no validation cells: no curve
            ax.plot(epochs, values, color=color, ls=style, label=label, marker=_marker(table))
    judged = curves["validation"] if np.isfinite(curves["validation"][0]).any() else curves["training"]
    kept = np.flatnonzero(epochs == best) if best is not None else np.array([], int)
    if len(kept):
        at = epochs[kept[0]], judged[0][kept[0]]
        ax.plot(*at, marker="o", mfc="none", mec=judged[1], ms=8, mew=1.5, ls="", label=f"kept: {at[1]:.3f}", zorder=3)
    values = np.concatenate([c[0] for c in curves.values()])
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) and values.max() > _LOGARITHMIC * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(
            LogLocator(subs=(1.0, 2.0, 3.0, 5.0) if values.max() < 30 * values.min() else (1.0,))
        )
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
    _style.legend(ax)


def _marker(table: pd.DataFrame) -> str:
    """A single epoch would be invisible as a line."""
    return "o" if len(table) == 1 else ""
