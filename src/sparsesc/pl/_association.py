from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from matplotlib.colors import Colormap, Normalize
from matplotlib.patches import Rectangle
from matplotlib.transforms import blended_transform_factory

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

# Name of each value, where it means nothing, and its ends if it has natural ones.
_VALUES: dict[str, tuple[str, float | None, tuple[float, float] | None]] = {
    "auroc": ("AUROC", 0.5, (0.0, 1.0)),
    "pearson_r": ("Pearson r", 0.0, None),
    "f1": ("best F1", None, (0.0, 1.0)),
    "mean_in": ("mean activation inside", None, None),
    "mean_out": ("mean activation outside", None, None),
}
_STRIP = 0.09  # inches across the strip of category colors
_GAP = 0.35  # cells of the heat map between two obs columns
_CHARACTER = 0.29  # width of a small letter, in columns


@plot_of("feature_association")
def association(
    adata: AnnData | MuData,
    label_key: str | Sequence[str] | None = None,
    *,
    key: str = "sae",
    value: Literal["auroc", "pearson_r", "f1", "mean_in", "mean_out"] = "auroc",
    features: str | int | Sequence[str | int] | None = None,
    n_shown: int = 30,
    cmap: str | Colormap | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    swap_axes: bool = False,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """Heat map of features against categories of ``obs``, ordered so that matches lie on the diagonal.

    Parameters
    ----------
    label_key
        Column (or columns) of ``obs`` whose categories are shown. ``None``: all that were tested.
    value
        Column of the table to show.
    features
        Features to show. ``None``: the `n_shown` clearest.
    n_shown
        How many features to choose: the best of each category (the largest `value`) first, so that every category shows
        the best there is for it, then those with the largest value anywhere.
    cmap
        Color map. ``None``: blue to red around the value that means nothing (AUROC 0.5, r 0), or one color from 0.
    vmin, vmax
        Ends of the color scale.
    swap_axes
        Categories as rows, features as columns.

    Raises
    ------
    KeyError
        If there is no such sparse autoencoder or feature, associations were not computed, or not with `label_key`.
    ValueError
        If `value` is unknown, no chosen feature was tested, or an option is out of its range.

    See Also
    --------
    sparsesc.get.association : The same values as a table.
    sparsesc.tl.annotate_features : Names features after the categories that they match.

    Notes
    -----
    The features shown were chosen for these very labels, so the diagonal looks good by construction: among many
    features some match by chance. Compare with a random code of the same size, or with labels of cells that were not
    used to choose.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_association(adata, "bulk_labels")
    >>> ax = ssc.pl.association(adata, n_shown=10, show=False)
    >>> len(ax.get_yticklabels()), [label.get_text() for label in ax.get_xticklabels()][:2]
    (10, ['CD4+/CD25 T Reg (n=68)', 'CD4+/CD45RA+/CD25- Naive T (n=8)'])
    """
    check_choice(value, _VALUES, name="value")
    n_shown = check_positive_int(n_shown, name="n_shown")
    table = check.get_table(adata, key, _keys.ASSOCIATION)
    tested = list(dict.fromkeys(table["key"].astype(str)))
    run = f" Run ssc.tl.feature_association(adata, {label_key!r}) first."
    keys = _utils.known_names(label_key, tested, "associations with", run)
    wide = wide_table(adata, table, keys, value)
    shown = clearest(wide, n_shown) if features is None else check.feature_names(adata, features, key)
    wide = on_diagonal(wide.loc[[f for f in shown if f in wide.index]])
    if wide.empty:
        msg = "None of these features has associations: they were not tested. Leave features out to see others."
        raise ValueError(msg)
    titles = _style.feature_titles(check.get_feature_table(adata, key), list(wide.index))
    if len(keys) == 1:  # which column labels are of is the same in all rows
        titles = {f: title.replace(f" · {keys[0]}: ", " · ") for f, title in titles.items()}

    rows = [_style.wrap(titles[f], 64, 1) for f in wide.index]
    sizes = table.astype({"key": str, "category": str}).groupby(["key", "category"])["n_cells"].first()
    columns = [f"{_style.wrap(str(c), 34, 1)} (n={sizes[label, c]:,})" for label, c in wide.columns]
    blocks = list(wide.columns.get_level_values("key"))
    colors = [(_style.category_colors(adata, label, [name]) or {}).get(name) for label, name in wide.columns]
    n_rows, n_columns = wide.shape
    long, short = max(map(len, rows)), max(map(len, columns))
    if swap_axes:
        size = (1.9 + 0.26 * n_rows + 0.085 * short, 0.9 + 0.26 * n_columns + 0.08 * long)
    else:
        size = (1.9 + 0.30 * n_columns + 0.085 * long, 0.9 + 0.22 * n_rows + 0.075 * short)
    width, height = _utils.figure_size(figsize, *size)
    fig, heat = _utils.one_axes(ax, width, height)

    name, center, full = _VALUES[value]
    low, high = _style.limits(wide.to_numpy(), center=center, full=full)
    norm = Normalize(low if vmin is None else vmin, high if vmax is None else vmax)
    chosen = _style.get_cmap(cmap, "viridis" if center is None else "RdBu_r")
    _draw(heat, wide.to_numpy(), rows, columns, blocks, colors, norm=norm, cmap=chosen, swap=swap_axes)
    _style.heat_map_colorbar(fig, heat, heat.collections[0], name, height)
    return _utils.finish(fig, heat, name="association", ax=ax, show=show, save=save, return_fig=return_fig)


def wide_table(adata: AnnData | MuData, table: pd.DataFrame, keys: list[str], value: str) -> pd.DataFrame:
    """Features x (key, category), categories in the order of ``obs``."""
    blocks = {}
    for label_key in keys:
        rows = table[table["key"].astype(str) == label_key].astype({"feature": str, "category": str, value: float})
        block = rows.pivot(index="feature", columns="category", values=value)
        order = list(dict.fromkeys(rows["category"]))
        if label_key in adata.obs.columns:
            known = pd.Categorical(adata.obs[label_key]).categories.astype(str)
            order = [c for c in known if c in block] + [c for c in order if c not in known]
        blocks[label_key] = block[order]
    wide = pd.concat(blocks, axis=1, names=["key", "category"])
    return wide.loc[[f for f in dict.fromkeys(table["feature"].astype(str)) if f in wide.index]]


def clearest(wide: pd.DataFrame, n: int) -> list[str]:
    """The best feature of each category, then those with the largest value anywhere, until there are `n`."""
    first = wide.rank(axis=0, ascending=False, method="first").eq(1).any(axis=1)
    order = pd.DataFrame({"later": ~first, "value": -wide.max(axis=1)}).dropna()
    return list(order.sort_values(["later", "value"], kind="stable").index[:n])


def on_diagonal(wide: pd.DataFrame) -> pd.DataFrame:
    """Rows sorted by the category each feature is clearest in, and by how clear it is there."""
    values = np.nan_to_num(wide.to_numpy(), nan=-np.inf)
    best = values.argmax(1)
    return wide.iloc[np.lexsort((-values.max(1), best))]


def _heading(name: str, n_columns: int) -> str:
    """Name of a block in lines, none of them broken within a word."""
    words = re.split(r"[\s_\-/]", name)
    return _style.wrap(name, max(8, 4 * n_columns, *(len(word) + 1 for word in words)), 3)


def _draw(
    ax: Axes,
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    blocks: list[str],
    colors: list[str | None],
    *,
    norm: Normalize,
    cmap: Colormap,
    swap: bool,
) -> None:
    """One mesh for each obs column, with a gap between them and a strip of the colors of the categories."""
    ends = np.cumsum([len(list(block)) for _, block in groupby(blocks)])
    starts = np.concatenate([[0], ends[:-1]])
    names = [_heading(blocks[start], end - start) for start, end in zip(starts, ends, strict=True)]
    # room for the longest line of each name, which the next block must not touch
    gaps = [
        max(_GAP, _CHARACTER * max(map(len, n.split("\n"))) - size)
        for n, size in zip(names, ends - starts, strict=True)
    ]
    left = np.arange(len(columns)) + np.repeat(np.cumsum([0.0, *gaps[:-1]]), ends - starts)
    lines = np.arange(len(rows) + 1)
    for start, end, name in zip(starts, ends, names, strict=True):
        edges = np.append(left[start:end], left[end - 1] + 1)
        block = np.ma.masked_invalid(values[:, start:end])
        mesh = (lines, edges, block.T) if swap else (edges, lines, block)
        ax.pcolormesh(*mesh, norm=norm, cmap=cmap, edgecolors="white", linewidth=0.5)
        if len(ends) > 1 and swap:
            ax.text(
                len(rows) + 0.2, edges[0], name, rotation=270, ha="left", va="top", size="small", color=_style.MUTED
            )
        elif len(ends) > 1:
            ax.text(edges[0], -0.3, name, ha="left", va="bottom", size="small", color=_style.MUTED)
    inches = _utils.inches_from(ax, (0, 0))
    where = (inches, ax.transData) if swap else (ax.transData, inches)
    for x, color in zip(left, colors, strict=True):
        if color is not None:
            place = ((-_STRIP - 0.04, x + 0.03), _STRIP, 0.94) if swap else ((x + 0.03, -_STRIP - 0.04), 0.94, _STRIP)
            strip = Rectangle(*place, facecolor=color, edgecolor="none", clip_on=False)
            strip.set_transform(blended_transform_factory(*where))
            ax.add_artist(strip)
    depth = len(rows)
    across, along = (ax.yaxis, ax.xaxis) if swap else (ax.xaxis, ax.yaxis)
    across.set_ticks(left + 0.5, columns)
    along.set_ticks(np.arange(depth) + 0.5, rows)
    if swap:
        ax.set(xlim=(0, depth), ylim=(left[-1] + 1, 0))
    else:
        ax.set(xlim=(0, left[-1] + 1), ylim=(depth, 0))
    across.set_tick_params(length=0, pad=72 * (_STRIP + 0.04) + 3 if any(colors) else 3, labelsize="small")
    along.set_tick_params(length=0, pad=3, labelsize="small")
    ax.tick_params(axis="x", labelrotation=45)
    for label in ax.get_xticklabels():
        label.set(ha="right", va="top", rotation_mode="anchor")
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
