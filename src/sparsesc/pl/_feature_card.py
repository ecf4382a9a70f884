from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from sparsesc import _logging
from sparsesc._titles import term_title
from sparsesc._values import check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys

from . import _style, _utils
from ._docs import plot_of
from ._enrichment import best_first, top_terms
from ._feature_umap import coordinates, draw_activation
from ._genes import draw_genes
from ._ranked import draw_ranked

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save


@plot_of("fit_sae")
def feature_card(
    adata: AnnData | MuData,
    feature: str | int,
    *,
    key: str = "sae",
    groupby: str | None = None,
    basis: str | None = "X_umap",
    n_groups: int = 12,
    n_genes: int = 10,
    n_terms: int = 6,
    alpha: float = 0.05,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """One feature at a glance: where it is on, in which labels, its top genes and its top gene sets.

    Parameters
    ----------
    feature
        Name (or position) of the feature.
    groupby
        Column of ``obs`` whose categories are compared. ``None``: the one that the feature is named after by
        :func:`sparsesc.tl.annotate_features`, else the one with the category that it matches best by
        :func:`sparsesc.tl.feature_association`, if these were computed.
    basis
        Entry of ``obsm`` to draw on; ``None`` leaves the map out.
    n_groups
        Categories to show: those with the largest share of cells in which the feature is on.
    n_genes
        Genes to show.
    n_terms
        Gene sets to show: of those with a positive score, the smallest adjusted p-values.
    alpha
        Genes and gene sets whose adjusted p-value is below this are filled, others outlined.
    ax
        Axes whose place the card takes; their figure should have ``layout="constrained"``.

    Returns
    -------
    a dictionary of the axes that were drawn: ``"embedding"``, ``"share"`` and ``"activation"`` (by category),
    ``"genes"``, ``"enrichment"``

    Raises
    ------
    KeyError
        If there is no such sparse autoencoder, feature (lists the closest), basis or column of ``obs``.
    ValueError
        If `groupby` holds numbers, there is nothing to draw, or an option is out of its range.

    See Also
    --------
    sparsesc.pl.feature_umap : Several features on an embedding.
    sparsesc.pl.association : Many features against labels.
    sparsesc.pl.genes : The genes of several features.

    Notes
    -----
    Panels whose table was not computed are left out; a hint in the log names the function. A feature is on in the cells
    whose activation is above ``uns[key]["features"]["on_threshold"]``: the dashed line, and the bars in full color (all
    active cells: in pale color). Boxes are the quartiles of the active cells only, whiskers their 5th and 95th
    percentiles. Mixed features, whose strong and weak activations are different cells, say so below their name.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_genes(adata)
    >>> axes = ssc.pl.feature_card(adata, "sae_0", groupby="bulk_labels", show=False)
    >>> list(axes)
    ['embedding', 'share', 'activation', 'genes']
    """
    name = check.feature_names(adata, [feature], key)[0]
    n_groups = check_positive_int(n_groups, name="n_groups")
    n_genes = check_positive_int(n_genes, name="n_genes")
    n_terms = check_positive_int(n_terms, name="n_terms")
    table = check.get_feature_table(adata, key)
    table.index = table.index.astype(str)
    position = table.index.get_loc(name)
    values = check.get_codes(adata, key)[:, [position]].toarray().ravel()
    threshold = float(check.get_on_thresholds(adata, key)[position])
    match = _best_match(adata, key, name, table.loc[name], groupby)
    if groupby is None and match is not None:
        groupby = match[0]
    groups = None if groupby is None else check.get_obs_column(adata, groupby)
    if groups is not None and pd.api.types.is_float_dtype(groups):
        msg = (
            f"groupby must name categories, found numbers in adata.obs[{groupby!r}]. Cut them into bins (pd.cut) first."
        )
        raise ValueError(msg)
    place = None if basis is None else coordinates(adata, basis)
    gene_rows = _rows(adata, key, _keys.GENES, name)
    term_rows = _rows(adata, key, _keys.ENRICHMENT, name)

    parts = {"embedding": place, "groups": groups, "genes": gene_rows, "enrichment": term_rows}
    cells = [part for part, data in parts.items() if data is not None]
    if not cells:
        msg = "Nothing to draw: basis=None, no groupby, and neither genes nor enrichment were computed. Name a basis."
        raise ValueError(msg)
    places, ratios = _layout(cells)
    nrows = 1 + max(row for row, _, _ in places.values())
    size = _utils.figure_size(figsize, 0.6 + 2.3 * sum(ratios), 3.4 * nrows + 0.3)
    fig, grid = _utils.area(ax, size, nrows, len(ratios), width_ratios=ratios)
    specs = {part: grid[row, start:stop] for part, (row, start, stop) in places.items()}

    axes: dict[str, Axes] = {}
    if place is not None:
        panel = axes["embedding"] = fig.add_subplot(specs["embedding"])
        draw_activation(panel, place[0], values)
        panel.set(xlabel=place[1][0], ylabel=place[1][1])
        on, active = (values > threshold).mean(), (values > 0).mean()
        panel.set_title(f"on in {on:.2%} of cells (active in {active:.2%})", size="medium")
    if groups is not None:
        row, start, _ = places["groups"]
        pair = fig.add_subplot(grid[row, start]), fig.add_subplot(grid[row, start + 1])
        axes |= {"share": pair[0], "activation": pair[1]}
        _draw_groups(*pair, adata, groups, values, threshold, n_groups, match)
    if gene_rows is not None:
        panel = axes["genes"] = fig.add_subplot(specs["genes"])
        draw_genes(panel, gene_rows.head(n_genes), alpha=alpha, n_rows=n_genes)
        panel.set(xlabel="score")
        panel.set_title("Genes", size="medium")
    if term_rows is not None:
        panel = axes["enrichment"] = fig.add_subplot(specs["enrichment"])
        _draw_terms(panel, term_rows, n_terms, alpha)
    text = _title(table, name, 80 if ax is None else 40)
    if ax is None:
        fig.suptitle(text, x=0.01, ha="left", weight="bold")
    else:  # the title of the figure belongs to the user
        first = next(iter(axes.values()))
        below = first.get_title() or first.get_title(loc="left")
        first.set_title("")
        first.set_title(f"{text}\n{below}", loc="left")
    return _utils.finish(fig, axes, name="feature_card", ax=ax, show=show, save=save, return_fig=return_fig)


def _title(table: pd.DataFrame, name: str, width: int) -> str:
    """The name in full, and which groups a mixed feature has."""
    text = _style.wrap(_style.feature_titles(table, [name])[name], width, 4)
    groups = table.loc[name].get("mixed_groups")
    return text if _style.is_blank(groups) else f"{text}\n{_style.wrap(f'mixed: {groups}', width, 3)}"


def _layout(cells: list[str]) -> tuple[dict[str, tuple[int, int, int]], list[float]]:
    """Row, first column and end column of each part, and the widths of the columns.

    The labels have two panels side by side; what is below them spans both.
    """
    pair = [0.95, 1.05]
    if len(cells) == 4:
        places = {"embedding": (0, 0, 1), "groups": (0, 1, 3), "genes": (1, 0, 1), "enrichment": (1, 1, 3)}
        return places, [2.0, *pair]
    places, ratios = {}, list[float]()
    for part in cells:
        columns = pair if part == "groups" else [2.0]
        places[part] = (0, len(ratios), len(ratios) + len(columns))
        ratios += columns
    return places, ratios


def _rows(adata: AnnData | MuData, key: str, name: str, feature: str) -> pd.DataFrame | None:
    """Rows of a table that belong to the feature; none where the table was not computed."""
    if name not in check.get_sae_slot(adata, key):
        _logging.hint(f"feature_card: no {name} for {key!r}; run ssc.tl.feature_{name} to see them here")
        return None
    table = check.get_table(adata, key, name)
    return table[table["feature"].astype(str) == feature]


def _best_match(
    adata: AnnData | MuData, key: str, feature: str, about: pd.Series, groupby: str | None
) -> tuple[str, str] | None:
    """The column that tells most about the feature, or `groupby`, and what to say about the best category in it.

    That is where the feature is on by its name, or the label it was given, with the score on held-out cells; else the
    category of the largest AUROC.
    """
    where, column = about.get("where"), about.get("where_key")
    if not _style.is_blank(where) and column in adata.obs and groupby in (None, column):
        return str(
            column
        ), f"{where} (held out: precision {about['where_precision']:.2f}, recall {about['where_recall']:.2f})"
    rows = _rows(adata, key, _keys.ASSOCIATION, feature)
    if rows is None:
        return None
    rows = rows[rows["auroc"].notna() & rows["key"].isin(adata.obs.columns)]
    rows = rows if groupby is None else rows[rows["key"] == groupby]
    if rows.empty:
        return None
    column, category = rows["key"].astype(str), rows["category"].astype(str)
    named = rows[(category == about.get("label")) | (column + ": " + category == about.get("label"))]
    best = rows.loc[rows["auroc"].idxmax()] if named.empty else named.iloc[0]
    held_out = about.get("label_auroc_heldout", np.nan)
    if not named.empty and np.isfinite(held_out):
        return str(best["key"]), f"{best['category']} (held-out AUROC {held_out:.2f})"
    return str(best["key"]), f"{best['category']} (AUROC {best['auroc']:.2f})"


def _draw_groups(
    left: Axes,
    right: Axes,
    adata: AnnData | MuData,
    groups: pd.Series,
    values: np.ndarray,
    threshold: float,
    n_groups: int,
    match: tuple[str, str] | None,
) -> None:
    """Share of cells in which the feature is on, and how active it is, by category."""
    groupby = str(groups.name)
    labels = pd.Categorical(groups)
    names = labels.categories.astype(str)
    known = labels.codes >= 0

    def count(cells: np.ndarray) -> np.ndarray:
        return np.bincount(labels.codes[known & cells], minlength=len(names))

    n_cells = count(np.ones(len(values), bool))
    share = count(values > threshold) / np.maximum(n_cells, 1)
    active_share = count(values > 0) / np.maximum(n_cells, 1)
    shown = np.lexsort((-active_share, -share))[:n_groups]
    stored = _style.category_colors(adata, groupby, list(names))
    colors = [_style.BLUE if stored is None else stored[names[i]] for i in shown]
    y = np.arange(len(shown))

    right.sharey(left)
    left.barh(y, share[shown], color=colors, height=0.7)
    left.barh(y, active_share[shown], color=colors, height=0.7, alpha=0.3, zorder=0)
    left.set_xlabel("share on (pale: active)", size="small")
    titles = [f"{_style.wrap(names[i], 26, 2)} (n={n_cells[i]:,})" for i in shown]
    _style.list_rows(left, titles, labelsize="small")
    left.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    left.locator_params(axis="x", nbins=2)
    active = [values[(labels.codes == i) & (values > 0)] for i in shown]
    kept = [i for i, a in enumerate(active) if len(a)]
    if kept:
        boxes = right.boxplot(
            [active[i] for i in kept],
            positions=y[kept],
            orientation="horizontal",
            widths=0.6,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            medianprops={"color": "black"},
            manage_ticks=False,
        )
        for box, i in zip(boxes["boxes"], kept, strict=True):
            box.set(facecolor=colors[i], linewidth=0.8)
        right.axvline(threshold, color=_style.MUTED, lw=0.8, ls="--", zorder=0)
    right.set_xlabel("activation where active", size="small")
    right.set_xlim(left=0)
    right.tick_params(axis="y", left=False, labelleft=False)
    right.grid(visible=False, axis="y")
    _style.tidy(right)
    title = groupby if match is None else f"{groupby}: {match[1]}"
    left.set_title(_style.wrap(title, 60, 3), size="medium", loc="left")


def _draw_terms(ax: Axes, rows: pd.DataFrame, n_terms: int, alpha: float) -> None:
    rows = top_terms(best_first(rows), n_terms)
    labels = [_style.wrap(term_title(str(t)), 34, 2) for t in rows["term"]]
    draw_ranked(ax, labels, rows["score"].to_numpy(float), rows["padj"].to_numpy(float), alpha, n_terms)
    ax.tick_params(axis="y", labelsize="small")
    ax.set_xlabel("score")
    ax.set_title("Gene sets", size="medium")
