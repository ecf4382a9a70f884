from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from matplotlib.colors import Colormap, Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from sparsesc._values import check_choice, check_positive_int
from sparsesc.get import geneset_impact as read

from . import _style, _utils
from ._association import on_diagonal
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

    from ._utils import Drawn, Save

_VALUES = {"scaled": "impact, scaled per set", "score": "score against random sets", "impact": "impact"}


@plot_of("geneset_impact")
def geneset_impact(
    adata: AnnData,
    units: str | int | Sequence[str | int] | None = None,
    *,
    key: str = "saliency",
    terms: str | Sequence[str] | None = None,
    n_terms: int = 30,
    n_units: int = 30,
    value: Literal["scaled", "score", "impact"] = "scaled",
    mark: float = 0.7,
    alpha: float = 0.05,
    strip: str = "HALLMARK_",
    cmap: str | Colormap | None = None,
    vmax: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """Which gene sets drive which units of a model: a heat map that marks what is large and what is significant.

    Parameters
    ----------
    units
        Units to show. ``None``: those on which the sets shown have most impact.
    terms
        Sets to show. ``None``: those with the smallest adjusted p-values.
    n_terms, n_units
        How many sets and units to choose.
    value
        ``"scaled"``: impact between its smallest and largest over units, for each set; ``"score"``: impact against that
        of random sets, in standard deviations; ``"impact"`` itself.
    mark
        With ``"scaled"``: values above it get a frame.
    alpha
        Adjusted p-values below it get a dot.
    strip
        What to leave out at the beginning of names of sets.
    cmap
        Color map. ``None``: from white to dark, or blue to red for scores.
    vmax
        End of the color scale.

    Raises
    ------
    KeyError
        If the impact was not computed, or there is no such unit or set.

    See Also
    --------
    sparsesc.get.geneset_impact : The same values as a table.
    sparsesc.tl.saliency : Which genes drive a unit.

    Notes
    -----
    Every row of scaled values has a 1 by construction, whether the set matters or not. Trust what has both marks.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.saliency(adata, "pca", units=["PC1", "PC2"], max_cells=20)
    >>> ssc.tl.geneset_impact(adata, ssc.datasets.gene_sets("immune_markers"), n_permutations=100)
    >>> ax = ssc.pl.geneset_impact(adata, n_terms=5, show=False)
    >>> sorted(label.get_text() for label in ax.get_xticklabels())
    ['PC1', 'PC2']
    """
    check_choice(value, _VALUES, name="value")
    n_terms = check_positive_int(n_terms, name="n_terms")
    n_units = check_positive_int(n_units, name="n_units")
    table = read(adata, units, key=key)
    table[["unit", "term"]] = table[["unit", "term"]].astype(str)
    if table.empty:
        msg = "These units were not tested: they are silent. Leave units out to see others."
        raise ValueError(msg)
    shown = _terms(table, terms, n_terms)
    wide = {name: _wide(table, name, shown) for name in ("scaled", "padj", value)}
    if units is None:
        wide = {name: part[_units(wide, n_units, mark, alpha)] for name, part in wide.items()}
    ordered = on_diagonal(wide["scaled"].T).T
    rows = on_diagonal(ordered).index
    values, padj = (wide[name].loc[rows, ordered.columns] for name in (value, "padj"))

    labels = [_style.wrap(term.removeprefix(strip), 40, 1) for term in values.index]
    columns = [_style.wrap(unit, 30, 1) for unit in values.columns]
    size = (2.2 + 0.21 * len(columns) + 0.085 * max(map(len, labels)), 1.1 + 0.2 * len(labels))
    fig, heat = _utils.one_axes(ax, *_utils.figure_size(figsize, *size))
    numbers = values.to_numpy(float)
    low, high = _style.limits(
        numbers, center=0.0 if value == "score" else None, full=(0, 1) if value == "scaled" else None
    )
    end = high if vmax is None else float(vmax)
    chosen = _style.get_cmap(cmap, "RdBu_r" if value == "score" else "Greys")
    mesh = heat.pcolormesh(
        numbers, norm=Normalize(-end if low < 0 else 0, end), cmap=chosen, edgecolors="white", linewidth=0.5
    )
    if value == "scaled":
        for y, x in zip(*np.nonzero(numbers > mark), strict=True):
            frame = Rectangle((x + 0.06, y + 0.06), 0.88, 0.88, fill=False, edgecolor=_style.BLUE, linewidth=1.2)
            heat.add_patch(frame)
    y, x = np.nonzero(padj.to_numpy() < alpha)
    heat.scatter(x + 0.5, y + 0.5, s=14, color=_style.ORANGE, edgecolors="white", linewidths=0.5, zorder=3)
    heat.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=90)
    heat.set_yticks(np.arange(len(labels)) + 0.5, labels)
    heat.tick_params(length=0, labelsize="small")
    heat.set(xlim=(0, len(columns)), ylim=(len(labels), 0))
    heat.spines[:].set_visible(False)
    heat.grid(visible=False)
    _style.heat_map_colorbar(fig, heat, mesh, _VALUES[value], size[1])
    _legend(heat, mark if value == "scaled" else None, alpha)
    return _utils.finish(fig, heat, name="geneset_impact", ax=ax, show=show, save=save, return_fig=return_fig)


def _terms(table: pd.DataFrame, terms: str | Sequence[str] | None, n: int) -> list[str]:
    """Sets by name, or those with the smallest p anywhere."""
    if terms is None:
        best = table.sort_values(["padj", "score"], ascending=[True, False], kind="stable")
        return list(dict.fromkeys(best["term"]))[:n]
    return _utils.known_names(terms, list(table["term"].unique()), "the gene sets")


def _wide(table: pd.DataFrame, value: str, terms: list[str]) -> pd.DataFrame:
    """Sets x units."""
    return table.pivot(index="term", columns="unit", values=value).loc[terms, list(dict.fromkeys(table["unit"]))]


def _units(wide: dict[str, pd.DataFrame], n: int, mark: float, alpha: float) -> list[str]:
    """The unit with most of each set, then those with most sets that have both marks."""
    scaled = wide["scaled"]
    first = scaled.idxmax(axis=1)
    both = ((scaled > mark) & (wide["padj"] < alpha)).sum() + 1e-6 * scaled.max()
    order = [*dict.fromkeys(first), *both.sort_values(ascending=False, kind="stable").index]
    kept = set(list(dict.fromkeys(order))[:n])
    return [unit for unit in scaled.columns if unit in kept]


def _legend(ax: Axes, mark: float | None, alpha: float) -> None:
    handles = [Line2D([], [], ls="", marker="o", ms=4, color=_style.ORANGE, label=f"padj < {alpha:g}")]
    if mark is not None:
        handles.append(Line2D([], [], ls="", marker="s", mfc="none", mec=_style.BLUE, ms=7, label=f"> {mark:g}"))
    where = {"loc": "upper left", "bbox_to_anchor": (0.08, 0.0), "bbox_transform": _utils.inches_from(ax, (1, 0))}
    _style.legend(ax, handles=handles, borderaxespad=0, handletextpad=0.3, **where)
