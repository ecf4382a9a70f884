from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sparsesc._values import check_choice, check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys

from . import _style, _utils
from ._ranked import draw_ranked

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save

_CHOSEN = 8
_VALUES = {"score": "score", "logfc": "log2 fold change"}


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
    """Ranked genes of features, one panel each.

    Parameters
    ----------
    adata
        Cells with the results of :func:`sparsesc.tl.feature_genes`.
    features
        Features to show. ``None``: the eight with the largest absolute score in the table.
    key
        Name of the sparse autoencoder.
    n_genes
        Genes in each panel, in the order of the table.
    value
        Column of the table on the horizontal axis.
    alpha
        Genes whose adjusted p-value is below this get a filled point, others a ring.
    sharex
        One scale for all panels.
    ncols
        Panels in a row.
    ax
        Axes to draw on, for one feature.
    show
        Show the figure. ``None``: ``sc.settings.autoshow``.
    save
        ``True`` or a suffix saves to ``sc.settings.figdir`` as ``genes{suffix}``, as in scanpy;
        a ``Path``, or a string with a folder in it, is taken as it is.
    return_fig
        Return the figure.

    Returns
    -------
    The figure with ``return_fig=True``; else with ``show=False`` the axes, or a list of them for several features; else
    ``None``. `adata` stays as it is.

    Raises
    ------
    KeyError
        If there is no such sparse autoencoder or feature, or genes were not computed.
    ValueError
        If none of the features was tested, or an option is out of its range.

    Notes
    -----
    Scores of features that are active in more cells are larger at the same effect: compare genes within a panel, not
    between panels; `value="logfc"` is comparable.
    """
    check_choice(value, _VALUES, name="value")
    n_genes = check_positive_int(n_genes, name="n_genes")
    ncols = check_positive_int(ncols, name="ncols")
    table = check.get_table(adata, key, _keys.GENES)
    table["feature"] = table["feature"].astype(str)
    names = strongest(table, _CHOSEN) if features is None else check.feature_names(adata, features, key)
    _utils.check_tested(table, names, "genes")
    titles = _style.feature_titles(check.get_feature_table(adata, key), names)

    scale = _utils.text_scale()
    size = _utils.panel_size((2.7 * scale, (0.8 + 0.2 * n_genes) * scale))
    fig, axes = _utils.panels(len(names), ncols, size, ax)
    for axis, name in zip(axes, names, strict=True):
        draw_genes(axis, table[table["feature"] == name].head(n_genes), value=value, alpha=alpha, n_rows=n_genes)
        axis.set_title(_style.wrap(titles[name], 28, 3))
        axis.set_xlabel(_VALUES[value])
    if sharex:
        ends = np.array([axis.get_xlim() for axis in axes])
        for axis in axes:
            axis.set_xlim(ends[:, 0].min(), ends[:, 1].max())
    drawn = axes[0] if len(names) == 1 else axes
    return _utils.finish(fig, drawn, name="genes", ax=ax, show=show, save=save, return_fig=return_fig)


def draw_genes(ax: Axes, rows: pd.DataFrame, *, value: str = "score", alpha: float = 0.05, n_rows: int = 0) -> None:
    """Genes of one feature in the order of the table."""
    values, padj = rows[value].to_numpy(float), rows["padj"].to_numpy(float)
    draw_ranked(ax, list(rows["gene"].astype(str)), values, padj, alpha, n_rows)


def strongest(table: pd.DataFrame, n: int) -> list[str]:
    """The features with the largest absolute score, in that order."""
    return list(table["score"].abs().groupby(table["feature"]).max().nlargest(n).index)
