from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sparsesc import get
from sparsesc._values import check_choice, check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save

_TICKS = np.array([0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1])
_FINE_TICKS = np.array([0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3])
_BINS = 40


@plot_of("apply_sae")
def drift(
    adata: AnnData | MuData,
    features: str | int | Sequence[str | int] | None = None,
    *,
    key: str = "sae",
    kind: Literal["features", "cells"] = "features",
    n_shown: int = 15,
    alpha: float = 0.05,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """Where new cells (a query) depart from the cells that an autoencoder was fitted to.

    Parameters
    ----------
    features
        Features to show, by name or position. ``None``: the first of the table, sorted by p-value where there was a
        test and by drift elsewhere.
    kind
        ``"features"``: share of active cells in the reference and in the query. ``"cells"``: how much of each cell the
        features leave unexplained, in both.
    n_shown
        How many to show when `features` is ``None``.
    alpha
        Limit of the adjusted p-value: filled points are below it, or were not tested.

    Raises
    ------
    KeyError
        If there is no such sparse autoencoder or feature, or it was fitted to these cells.
    ValueError
        If nothing is known of the reference, or an option is out of its range.

    See Also
    --------
    sparsesc.get.drift : The same values as a table.

    Notes
    -----
    The axis of shares is stretched toward its ends such that equal distances are equally certain.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> query = sc.datasets.pbmc68k_reduced()[:300].copy()
    >>> ssc.tl.apply_sae(query, adata)
    >>> ax = ssc.pl.drift(query, n_shown=5, show=False)
    >>> ax.get_xlabel(), len(ax.get_yticklabels())
    ('Share of active cells', 5)
    """
    check_choice(kind, ("features", "cells"), name="kind")
    n_shown = check_positive_int(n_shown, name="n_shown")
    table = get.drift(adata, features, key)
    summary = check.get_sae_slot(adata, key)[_keys.QUERY]
    fvu, fvu_reference = float(summary["fvu_reference_units"]), float(summary["fvu_reference"])
    title = f"unexplained: query {fvu:.1%}, reference {fvu_reference:.1%}" if np.isfinite(fvu) else ""
    if kind == "cells":
        fig, panel = _utils.one_axes(ax, *_utils.figure_size(figsize, 4.2, 3.6))
        _cells(panel, adata, key, title)
    else:
        table = table[table["drift"].notna()]
        if table.empty:
            msg = f"Nothing is known of the cells that {key!r} was fitted to: there is no drift to show."
            raise ValueError(msg)
        table = table if features is not None else table.head(n_shown)
        titles = _style.feature_titles(check.get_feature_table(adata, key), list(table["feature"].astype(str)))
        labels = [_style.wrap(title, 40, 2) for title in titles.values()]
        size = (3.4 + 0.06 * max(map(len, labels)), 1.1 + 0.24 * len(labels))
        fig, panel = _utils.one_axes(ax, *_utils.figure_size(figsize, *size))
        _features(panel, table, labels, alpha)
        panel.set_title(title, size="small", loc="left")
    return _utils.finish(fig, panel, name="drift", ax=ax, show=show, save=save, return_fig=return_fig)


def _features(ax: Axes, table: pd.DataFrame, labels: list[str], alpha: float) -> None:
    """One row for each feature: a ring for the reference, a point for the query."""
    y = np.arange(len(table))
    before, after = table["density_reference"].to_numpy(float), table["density_query"].to_numpy(float)
    unsure = table["padj"].to_numpy(float) >= alpha  # NaN: there was no test
    color = np.where(after >= before, _style.BLUE, _style.ORANGE)
    ax.hlines(y, _stretch(before), _stretch(after), color=_style.STEM, lw=1.5, zorder=1)
    ax.scatter(_stretch(before), y, s=26, c="white", edgecolors=_style.MUTED, zorder=2, label="reference")
    ax.scatter(_stretch(after), y, s=30, c=np.where(unsure, "white", color), edgecolors=list(color), zorder=3)
    ax.scatter([], [], s=30, c=_style.BLUE, label="query: more")
    ax.scatter([], [], s=30, c=_style.ORANGE, label="less")
    if unsure.any():
        ax.scatter([], [], s=30, c="white", edgecolors=_style.BLUE, label=f"padj ≥ {alpha:g}")
    reach = float(max(before.max(), after.max()))
    ticks = _FINE_TICKS if reach <= _FINE_TICKS[-1] else _TICKS
    ticks = ticks[: int(np.searchsorted(ticks, reach)) + 1]
    ax.set_xticks(_stretch(ticks), [f"{100 * tick:g}%" for tick in ticks])
    ax.set_xlim(-0.08, float(_stretch(ticks[-1])) + 0.08)
    ax.tick_params(axis="x", labelsize="small")
    ax.set_xlabel("Share of active cells")
    _style.list_rows(ax, labels, labelsize="small")
    _style.legend(ax, loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.2)


def _cells(ax: Axes, adata: AnnData | MuData, key: str, title: str) -> None:
    """Residuals of the query and of the reference's unseen cells."""
    slots, slot = _keys.sae_keys(key), check.get_sae_slot(adata, key)
    here = check.get_obs_column(adata, slots.residual).to_numpy(float)
    there = np.asarray(slot[_keys.REFERENCE].get("residual", ()), dtype=float)
    both = np.concatenate([here, there])
    top = float(np.quantile(both, 0.999)) * 1.05
    edges = np.linspace(0, top, _BINS + 1).tolist()
    if len(there):
        ax.hist(np.minimum(there, top), bins=edges, density=True, color=_style.STEM, label="reference")
        limit = float(np.quantile(there, 0.95))
        beyond = float(slot[_keys.QUERY]["beyond_95"])
        share = f": {beyond:.1%} of the query beyond" if np.isfinite(beyond) else ""
        ax.axvline(limit, color="black", ls=":", lw=1.2, label=f"95 % of the reference{share}")
    ax.hist(np.minimum(here, top), bins=edges, density=True, histtype="step", color=_style.BLUE, lw=1.5, label="query")
    ax.set(xlabel="What the features leave over of a cell", ylabel="Density of cells", xlim=(0, top))
    where = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0}
    _style.legend(ax, title=title, title_fontsize="small", alignment="left", **where)
    _style.tidy(ax)


def _stretch(share: np.ndarray) -> np.ndarray:
    return 2 * np.arcsin(np.sqrt(share))
