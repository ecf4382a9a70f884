from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sparsesc._values import check_choice, check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys

from . import _style, _utils
from ._docs import plot_of
from ._ranked import draw_ranked

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save

_CHOSEN = 8
_VALUES = {"score": "score", "logfc": "log2 fold change"}


@plot_of("feature_genes")
def genes(
    adata: AnnData | MuData,
    features: str | int | Sequence[str | int] | None = None,
    *,
    key: str = "sae",
    n_genes: int = 10,
    value: Literal["score", "logfc"] = "score",
    alpha: float = 0.05,
    sharex: bool = False,
    ncols: int = 4,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """Ranked genes of features, one panel for each feature.

    Parameters
    ----------
    features
        Features to show. ``None``: the eight with the largest absolute score in the table.
    n_genes
        Genes in each panel, in the order of the table.
    value
        Column of the table on the horizontal axis.
    alpha
        Genes whose adjusted p-value is below this get a filled point, others a ring.
    sharex
        One scale for all panels.

    Returns
    -------
    the axes, or a list of them for several features

    Raises
    ------
    ValueError
        If none of the features was tested, or an option is out of its range.

    See Also
    --------
    sparsesc.get.genes : The same values as a table.
    sparsesc.pl.enrichment : Gene sets among the genes of features.

    Notes
    -----
    Scores of features that are active in more cells are larger at the same effect: compare genes within a panel, not
    between panels; ``value="logfc"`` is comparable.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_genes(adata)
    >>> axes = ssc.pl.genes(adata, ["sae_0", "sae_1"], n_genes=5, show=False)
    >>> [len(ax.get_yticklabels()) for ax in axes]
    [5, 5]
    """
    check_choice(value, _VALUES, name="value")
    n_genes = check_positive_int(n_genes, name="n_genes")
    ncols = check_positive_int(ncols, name="ncols")
    table = check.get_table(adata, key, _keys.GENES)
    table["feature"] = table["feature"].astype(str)
    names = strongest(table, _CHOSEN) if features is None else check.feature_names(adata, features, key)
    _utils.check_tested(table, names, "genes")
    titles = _style.feature_titles(check.get_feature_table(adata, key), names)

    size = _utils.panel_size(_utils.figure_size(None, 2.7, 0.8 + 0.2 * n_genes))
    fig, axes = _utils.panels(len(names), ncols, size, ax)
    for axis, name in zip(axes, names, strict=True):
        draw_genes(axis, table[table["feature"] == name].head(n_genes), value=value, alpha=alpha, n_rows=n_genes)
        axis.set_title(_style.wrap(titles[name], 28, 4))
        axis.set_xlabel(_VALUES[value])
    if sharex:
        ends = np.array([axis.get_xlim() for axis in axes])
        for axis in axes:
            axis.set_xlim(ends[:, 0].min(), ends[:, 1].max())
    return _utils.finish(fig, axes, name="genes", ax=ax, show=show, save=save, return_fig=return_fig)


def draw_genes(ax: Axes, rows: pd.DataFrame, *, value: str = "score", alpha: float = 0.05, n_rows: int = 0) -> None:
    """Genes of one feature in the order of the table."""
    values, padj = rows[value].to_numpy(float), rows["padj"].to_numpy(float)
    draw_ranked(ax, list(rows["gene"].astype(str)), values, padj, alpha, n_rows)


def strongest(table: pd.DataFrame, n: int) -> list[str]:
    """The features with the largest absolute score, in that order."""
    return list(table["score"].abs().groupby(table["feature"]).max().nlargest(n).index)
