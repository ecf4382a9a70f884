from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.colors import Colormap, Normalize
from matplotlib.patches import Rectangle

from sparsesc._values import check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save

_NAMES = {
    "activation": "Pearson r of activations",
    "decoder": "cosine of decoder directions",
    "genes": "Pearson r of gene scores",
}


@plot_of("feature_similarity")
def similarity(
    adata: AnnData | MuData,
    features: str | int | Sequence[str | int] | None = None,
    *,
    key: str = "sae",
    n_shown: int = 40,
    cmap: str | Colormap | None = None,
    vmax: float = 1.0,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """Heat map of features against each other, similar ones side by side, groups of redundant ones outlined.

    Parameters
    ----------
    features
        Features to show. ``None``: those of the most similar pairs.
    n_shown
        How many features to choose.
    cmap
        Color map. ``None``: blue to red around 0.
    vmax
        End of the color scale; the other end is its negative.

    Raises
    ------
    ValueError
        If fewer than two features are named, or an option is out of its range.

    See Also
    --------
    sparsesc.get.similarity : The most similar pairs as a table.

    Notes
    -----
    The values shown are of the metric that :func:`sparsesc.tl.feature_similarity` used. The most similar pairs of many
    features look alike by choice: the plot shows what is redundant, not how much.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_similarity(adata)
    >>> ax = ssc.pl.similarity(adata, n_shown=12, show=False)
    >>> len(ax.get_yticklabels())
    12
    """
    n_shown = check_positive_int(n_shown, name="n_shown")
    if not vmax > 0:
        msg = f"vmax must be positive, found {vmax!r}."
        raise ValueError(msg)
    pairs = check.get_table(adata, key, _keys.SIMILARITY)
    table = check.get_feature_table(adata, key)
    if features is None:
        ordered = pairs.sort_values("score", ascending=False, kind="stable")[["feature", "neighbor"]].astype(str)
        names = list(dict.fromkeys(ordered.to_numpy().ravel()))[:n_shown]
    else:
        names = check.feature_names(adata, features, key)
    if len(names) < 2:
        msg = f"A heat map of similarities needs at least two features, found {listing(names)}."
        raise ValueError(msg)
    metric = str(check.get_sae_slot(adata, key)[_keys.PARAMS]["feature_similarity"]["metric"])
    values = _values(adata, key, pairs, names)
    groups = table["group"].astype(str).loc[names].to_numpy(dtype=object)
    order = _side_by_side(values, groups)
    values, groups, names = values[np.ix_(order, order)], groups[order], [names[i] for i in order]
    titles = _style.feature_titles(table, names)
    texts = [_style.wrap(titles[f], 64, 1) for f in names]

    n = len(names)
    side = 1.0 + 0.19 * n + 0.075 * max(map(len, texts))
    scale = _utils.text_scale()
    fig, heat = _utils.one_axes(ax, *((scale * (side + 0.9), scale * side) if figsize is None else figsize))
    mesh = heat.pcolormesh(values, norm=Normalize(-vmax, vmax), cmap=_style.get_cmap(cmap, "RdBu_r"))
    start = 0
    while start < n:
        stop = start + int((groups[start:] == groups[start]).cumprod().sum())
        if stop - start > 1:
            size = stop - start
            heat.add_patch(Rectangle((start, start), size, size, fill=False, edgecolor="black", linewidth=1.2))
        start = stop
    heat.set_xticks(np.arange(n) + 0.5, texts, rotation=45, ha="right", va="top", rotation_mode="anchor")
    heat.set_yticks(np.arange(n) + 0.5, texts)
    heat.tick_params(length=0, labelsize="x-small" if n > 20 else "small")
    heat.set(xlim=(0, n), ylim=(n, 0), aspect="equal")
    heat.spines[:].set_visible(False)
    heat.grid(visible=False)
    bar = fig.colorbar(mesh, ax=heat, pad=0.02, shrink=min(1.0, 2.0 / side), aspect=14, anchor=(0, 1))
    bar.set_label(_NAMES[metric])
    bar.outline.set_visible(False)
    return _utils.finish(fig, heat, name="similarity", ax=ax, show=show, save=save, return_fig=return_fig)


def _values(adata: AnnData | MuData, key: str, pairs: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Pairs of a few features; blank where one is the other, or where no table has the pair."""
    matrix = check.get_sae_slot(adata, key)[_keys.SIMILARITY_MATRIX]
    place = pd.Index(matrix["features"]).get_indexer(names)
    values = np.where((place < 0)[:, None] | (place < 0), np.nan, np.asarray(matrix["values"])[np.ix_(place, place)])
    one, two = (pd.Index(names).get_indexer(pairs[side].astype(str)) for side in ("feature", "neighbor"))
    listed = (one >= 0) & (two >= 0)
    one, two, score = one[listed], two[listed], pairs["score"].to_numpy()[listed]
    for row, column in ((one, two), (two, one)):
        blank = np.isnan(values[row, column])
        values[row[blank], column[blank]] = score[blank]
    np.fill_diagonal(values, np.nan)
    return values


def _side_by_side(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Order of the leaves of an average-linkage tree, with the members of a group kept together."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = 1.0 - np.nan_to_num((values + values.T) / 2, nan=0.0)
    np.fill_diagonal(distance, 0)
    leaves = leaves_list(
        linkage(squareform(np.clip(distance, 0, None), checks=False), "average", optimal_ordering=True)
    )
    names = np.where(groups == "", [f" {i}" for i in range(len(groups))], groups)  # silent features stand alone
    first = {name: i for i, name in reversed(list(enumerate(names[leaves])))}
    place = pd.Series(names[leaves]).map(first).to_numpy()
    return leaves[np.argsort(place, kind="stable")]
