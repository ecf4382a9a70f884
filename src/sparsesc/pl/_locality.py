from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from sparsesc.door import _checks as check
from sparsesc.door import _keys

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save


@plot_of("feature_locality")
def locality(
    adata: AnnData | MuData,
    *,
    key: str = "sae",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """How many features each category has to itself, and how many it shares.

    See Also
    --------
    sparsesc.get.locality : The same values as a table.

    Notes
    -----
    A regional feature counts in each of its categories. Rare categories have fewer features also because it takes cells
    to show a difference.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_locality(adata, "bulk_labels")
    >>> ax = ssc.pl.locality(adata, show=False)
    >>> ax.get_xlabel()
    'features that are stronger there'
    """
    table = check.get_table(adata, key, _keys.LOCALITY)
    groupby = check.get_sae_slot(adata, key)[_keys.PARAMS]["feature_locality"]["groupby"]
    counts = count_features(table)
    words = check.get_feature_table(adata, key)["locality"].astype(str).value_counts()
    sizes = table.groupby("category", observed=True)["n_cells"].first().reindex(counts.index)

    rows = [f"{_style.wrap(str(c), 40, 1)} (n={n:,})" for c, n in sizes.items()]
    width, height = 3.6 + 0.07 * max(map(len, rows)), 1.1 + 0.24 * len(rows)
    fig, bars = _utils.one_axes(ax, *_utils.figure_size(figsize, width, height))
    y = np.arange(len(rows))
    left = np.zeros(len(rows))
    for kind, color in (("local", _style.BLUE), ("regional", _style.ORANGE)):
        bars.barh(y, counts[kind], left=left, color=color, label=f"{kind} ({words.get(kind, 0)})", height=0.75)
        left += counts[kind].to_numpy()
    bars.set_xlabel("features that are stronger there")
    _style.list_rows(bars, rows, labelsize="small")
    bars.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    others = ", ".join(f"{words.get(word, 0)} {word}" for word in ("global", "unclear"))
    title = f"{groupby}\n(and {others})"
    where = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    _style.legend(bars, title=title, title_fontsize="small", alignment="left", **where)
    return _utils.finish(fig, bars, name="locality", ax=ax, show=show, save=save, return_fig=return_fig)


def count_features(table: pd.DataFrame) -> pd.DataFrame:
    """Local and regional features of each category, in the order of the table."""
    table = table.astype({"feature": str, "category": str})
    stronger = table[table["stronger"].astype(bool)]
    n_categories = stronger["feature"].map(stronger["feature"].value_counts())
    kinds = {"local": stronger[n_categories == 1], "regional": stronger[n_categories > 1]}
    counts = {kind: rows["category"].value_counts() for kind, rows in kinds.items()}
    return pd.DataFrame(counts, index=pd.unique(table["category"])).fillna(0).astype(int)
