from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from sparsesc.get import latent_diagnostics as read

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mudata import MuData

    from ._utils import Drawn, Save

_ALPHA = 0.05
_MOST_DONORS = 20
_MOST_NAMED = 16  # dimensions whose numbers fit below


@plot_of("latent_diagnostics")
def latent_diagnostics(
    adata: AnnData | MuData,
    *,
    key: str = "latent_diagnostics",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """How a latent space does on held-out donors: its objective, the dimensions in use, and what each depends on.

    Returns
    -------
    a dictionary of the axes: ``"elbo"`` (its two parts for each donor), ``"dimensions"`` (divergence of each, largest
    first; for models without a posterior the variance) and, where keys were tested, ``"dependence"`` (share of the
    variance explained; a dot marks an adjusted p-value below .05)

    See Also
    --------
    sparsesc.get.latent_diagnostics : The tables behind the panels.

    Notes
    -----
    Dimensions are in the same order, by divergence, in both panels.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> class Components:  # any model with these two methods
    ...     def project(self, adata):
    ...         return adata.obsm["X_pca"][:, :5]
    ...
    ...     def get_log_likelihood(self, adata, *, latent):
    ...         return -(adata.X**2).sum(1)
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.latent_diagnostics(adata, Components(), "bulk_labels", n_permutations=99)
    >>> axes = ssc.pl.latent_diagnostics(adata, show=False)
    >>> list(axes)
    ['elbo', 'dimensions', 'dependence']
    """
    elbo, table = read(adata, table="elbo", key=key), read(adata, table="dimensions", key=key)
    depends = read(adata, table="dependence", key=key)
    ratios = {"elbo": 1.0, "dimensions": 1.5} | ({"dependence": 1.3} if len(depends) else {})
    size = _utils.figure_size(figsize, 2.8 * sum(ratios.values()), 3.4)
    fig, axes = _utils.panel_row(ax, size, list(ratios), width_ratios=list(ratios.values()))
    measure = "kl" if table["kl"].notna().any() else "variance"
    table = table.sort_values(measure, ascending=False, kind="stable")
    _elbo(axes["elbo"], elbo)
    _dimensions(axes["dimensions"], table, measure)
    for panel in axes.values():
        _style.tidy(panel)
    if "dependence" in axes:
        _dependence(fig, axes["dependence"], depends, list(table.index.astype(str)))
    return _utils.finish(fig, axes, name="latent_diagnostics", ax=ax, show=show, save=save, return_fig=return_fig)


def _elbo(ax: Axes, table: pd.DataFrame) -> None:
    """Reconstruction and divergence end to end, all cells first, then the donors."""
    table = table.iloc[: 1 + _MOST_DONORS]
    y = np.arange(len(table))
    parts = [("reconstruction", "reconstruction", _style.BLUE), ("kl", "divergence", _style.ORANGE)]
    left = np.zeros(len(table))
    for column, label, color in parts:
        width = table[column].fillna(0.0).to_numpy(float)
        if not width.any():
            continue
        ax.barh(y, width, left=left, color=color, height=0.7, label=label)
        left += width
    sizes = zip(table["donor"], table["n_cells"], strict=True)
    ax.set_yticks(y, [f"{_style.wrap(str(name), 16, 2)} (n={n:,})" for name, n in sizes])
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlabel("-ELBO (nats per cell)")
    _style.legend(ax, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0.1)


def _dimensions(ax: Axes, table: pd.DataFrame, measure: str) -> None:
    x = np.arange(len(table))
    active, collapsed = table["active"].to_numpy(bool), table["collapsed"].to_numpy(bool)
    kinds = [
        (active & ~collapsed, _style.BLUE, "active"),
        (~active & ~collapsed, _style.STEM, "not active"),
        (collapsed, _style.ORANGE, "collapsed"),
    ]
    values = table[measure].to_numpy(float)
    handles = []
    for chosen, color, label in kinds:
        ax.bar(x[chosen], values[chosen], color=color, width=0.8)
        handles.append(Patch(color=color, label=f"{label}: {int(chosen.sum())}"))
    if collapsed.any():  # their bars are too low to see
        ax.plot(x[collapsed], values[collapsed], "v", color=_style.ORANGE, ms=4, clip_on=False)
    _name_dimensions(ax, list(table.index.astype(str)))
    ax.set_ylabel("Divergence from the prior (nats)" if measure == "kl" else "Variance over cells")
    ax.margins(y=0.3)  # room for the legend
    ax.set_ylim(bottom=0)
    _style.legend(ax, handles=handles, loc="upper right", borderpad=0.1)


def _name_dimensions(ax: Axes, names: list[str]) -> None:
    """Numbers below the dimensions, if they fit."""
    shown = names if len(names) <= _MOST_NAMED else []
    ax.set_xticks(range(len(shown)), [name.removeprefix("z_") for name in shown], fontsize="small")
    ax.set_xlabel("Dimension")


def _dependence(fig: Figure, ax: Axes, table: pd.DataFrame, order: list[str]) -> None:
    """Keys x dimensions."""
    keys = list(dict.fromkeys(table["key"].astype(str)))
    wide = table.pivot(index="key", columns="dimension", values=["share", "padj"])
    values, padj = (wide[name].loc[keys, order].to_numpy(float) for name in ("share", "padj"))
    top = max(float(np.nanmax(values, initial=0.0)), 0.1)
    image = ax.imshow(
        np.ma.masked_invalid(values), aspect="auto", cmap=_style.get_cmap(None, _style.activation_cmap()), vmin=0,
        vmax=top, interpolation="nearest",
    )  # fmt: skip
    rows, columns = np.nonzero(padj < _ALPHA)
    dark = values[rows, columns] > 0.5 * top
    ax.scatter(columns, rows, s=14, c=np.where(dark, "white", "black"), linewidths=0)
    untested = np.isnan(padj).all(axis=1)
    names = [
        _style.wrap(name, 14, 2) + ("\n(no test)" if none else "") for name, none in zip(keys, untested, strict=True)
    ]
    ax.set_yticks(range(len(keys)), names)
    _name_dimensions(ax, order)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    bar = fig.colorbar(image, ax=ax, aspect=25, pad=0.03)
    bar.set_label("Share of the variance")
