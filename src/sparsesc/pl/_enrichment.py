from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.colors import Colormap, Normalize
from matplotlib.lines import Line2D

from sparsesc._titles import term_title
from sparsesc._values import check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend
    from mudata import MuData

    from ._utils import Drawn, Save

_CHOSEN = 10
_SMALLEST, _LARGEST = 6.0, 150.0  # areas of dots, points squared


@plot_of("feature_enrichment")
def enrichment(
    adata: AnnData | MuData,
    features: str | int | Sequence[str | int] | None = None,
    *,
    key: str = "sae",
    n_terms: int = 3,
    alpha: float = 0.05,
    max_log10: float = 10.0,
    cmap: str | Colormap | None = None,
    vmax: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """Dot plot of gene sets and features: color is the score, size the adjusted p-value.

    Parameters
    ----------
    features
        Features to show. ``None``: the ten with the smallest adjusted p-values.
    n_terms
        Terms to choose for each feature: of those with a positive score, the smallest adjusted p-values (then the
        largest scores), and below `alpha` except for the first. Terms are shown for all features.
    alpha
        Dots whose adjusted p-value is below this get a dark edge.
    max_log10
        -log10 of the adjusted p-value from which dots have the same, largest size.
    cmap
        Color map. ``None``: blue to red around 0 where scores have both signs, else one color from 0.
    vmax
        End of the color scale.

    Raises
    ------
    ValueError
        If none of the features was tested, or an option is out of its range.

    See Also
    --------
    sparsesc.get.enrichment : The same values as a table.
    sparsesc.pl.genes : The genes behind the gene sets.

    Notes
    -----
    A missing dot means that the table has no such row: :func:`~sparsesc.tl.feature_enrichment` keeps the best terms of
    each feature only (``n_top=None`` keeps all). Overlapping gene sets light up together; several dots in a column
    are not several discoveries.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_genes(adata)
    >>> ssc.tl.feature_enrichment(adata, ssc.datasets.gene_sets("immune_markers"))
    >>> ax = ssc.pl.enrichment(adata, ["sae_0", "sae_1"], show=False)
    >>> sorted(label.get_text() for label in ax.get_xticklabels())
    ['sae_0', 'sae_1']
    """
    n_terms = check_positive_int(n_terms, name="n_terms")
    if not max_log10 > 0:
        msg = f"max_log10 must be positive, found {max_log10!r}."
        raise ValueError(msg)
    table = check.get_table(adata, key, _keys.ENRICHMENT)
    table[["feature", "term"]] = table[["feature", "term"]].astype(str)
    table = best_first(table)
    best = list(dict.fromkeys(table["feature"]))[:_CHOSEN]
    names = best if features is None else check.feature_names(adata, features, key)
    _utils.check_tested(table, names, "enrichment")
    titles = _style.feature_titles(check.get_feature_table(adata, key), names)
    terms, names = _diagonal(table, names, n_terms, alpha)
    shown = table[table["feature"].isin(names) & table["term"].isin(terms)]

    rows = [_style.wrap(term_title(t), 42, 3) for t in terms]
    columns = [_style.wrap(titles[f], 64, 1) for f in names]
    heights = np.array([0.12 + 0.14 * (1 + r.count("\n")) for r in rows])
    width = 2.2 + 0.34 * len(names) + 0.08 * max(len(line) for r in rows for line in r.split("\n"))
    height = max(2.8, 0.6 + heights.sum()) + 0.06 * max(map(len, columns))
    fig, dots = _utils.one_axes(ax, *_utils.figure_size(figsize, width, height))

    y = np.cumsum(heights) - heights / 2
    y /= heights.mean()
    at = shown["feature"].map({f: i for i, f in enumerate(names)}).to_numpy(float)
    level = shown["term"].map(dict(zip(terms, y, strict=True))).to_numpy(float)
    score = shown["score"].to_numpy(float)
    low, high = _style.limits(score, center=0.0 if (score < 0).any() else None, full=None)
    end = high if vmax is None else float(vmax)
    drawn = dots.scatter(
        at,
        level,
        s=dot_areas(shown["padj"].to_numpy(float), max_log10),
        c=score,
        cmap=_style.get_cmap(cmap, "RdBu_r" if low < 0 else "viridis_r"),
        norm=Normalize(-end if low < 0 else 0, end),
        edgecolors=["black" if p < alpha else "none" for p in shown["padj"]],
        linewidths=0.8,
        zorder=2,
    )
    dots.set_xticks(range(len(names)), columns, rotation=45, ha="right", va="top", rotation_mode="anchor")
    dots.set_yticks(y, rows)
    dots.tick_params(axis="y", labelsize="small", length=0)
    dots.tick_params(axis="x", labelsize="small", length=2)
    dots.set(xlim=(-0.7, len(names) - 0.3), ylim=(y[-1] + 0.8, y[0] - 0.8))
    dots.grid(color="#ececec", lw=0.6, zorder=0)
    dots.set_axisbelow(True)
    legend = _size_legend(dots, max_log10, alpha)
    # beneath the legend of sizes, in inches: its place does not depend on the size of the plot
    top = -legend.get_window_extent().height / fig.dpi - 0.15
    place = (0.15, top - 0.9, 0.12, 0.9)
    bar = fig.colorbar(drawn, cax=dots.inset_axes(place, transform=_utils.inches_from(dots, (1, 1))))
    bar.set_label("score", size="small")
    bar.ax.tick_params(labelsize="small")
    bar.outline.set_visible(False)
    return _utils.finish(fig, dots, name="enrichment", ax=ax, show=show, save=save, return_fig=return_fig)


def dot_areas(padj: np.ndarray, max_log10: float) -> np.ndarray:
    """Areas of dots, growing with -log10 of the adjusted p-value up to `max_log10`."""
    evidence = -np.log10(np.clip(padj, 10.0**-max_log10, 1.0))
    return np.nan_to_num(_SMALLEST + (_LARGEST - _SMALLEST) * evidence / max_log10, nan=_SMALLEST)


def best_first(table: pd.DataFrame) -> pd.DataFrame:
    """Positive scores first, then by adjusted p-value, then by score."""
    by = pd.DataFrame({"down": table["score"] <= 0, "padj": table["padj"], "score": -table["score"]})
    return table.loc[by.sort_values(["down", "padj", "score"], kind="stable").index]


def top_terms(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """The first `n` rows of a feature (sorted best first) with positive scores; of all rows if there is none."""
    up = rows[rows["score"] > 0]
    return (rows if up.empty else up).head(n)


def _diagonal(table: pd.DataFrame, names: list[str], n_terms: int, alpha: float) -> tuple[list[str], list[str]]:
    """The best terms of each feature, in the order of the features; those that share their best term side by side."""
    best = {}
    for name in names:
        rows = top_terms(table[table["feature"] == name], n_terms)
        # the first term is shown even where nothing is significant
        best[name] = rows["term"][(rows["padj"] < alpha) | (np.arange(len(rows)) == 0)].tolist()
    first = list(dict.fromkeys(terms[0] for terms in best.values() if terms))
    order = sorted(names, key=lambda f: first.index(best[f][0]) if best[f] else len(first))
    return list(dict.fromkeys(t for f in order for t in best[f])), order


def _size_legend(ax: Axes, max_log10: float, alpha: float) -> Legend:
    """Sizes of three p-values, and what the edge means."""
    levels = [max_log10 * share for share in (0.2, 0.5, 1.0)]
    handles = [_dot(f"{v:g}", dot_areas(np.array([10.0**-v]), max_log10)[0], "none") for v in levels]
    handles[-1].set_label(f"≥ {max_log10:g}")
    handles.append(_dot(f"padj < {alpha:g}", 60.0, "black"))
    return _style.legend(
        ax,
        handles=handles,
        title=r"$-\log_{10}$ padj",
        title_fontsize="small",
        alignment="left",
        loc="upper left",
        bbox_to_anchor=(0.08, 0.0),
        bbox_transform=_utils.inches_from(ax, (1, 1)),
        borderaxespad=0,
        labelspacing=0.8,
    )


def _dot(label: str, area: float, edge: str) -> Line2D:
    return Line2D([], [], ls="", marker="o", mfc="#bdbdbd", mec=edge, mew=0.8, ms=float(np.sqrt(area)), label=label)
