from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

from sparsesc import get
from sparsesc.door import _checks as check

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save

_GAP = 3.0  # bars between kinds
_FIRST = (_style.BLUE, _style.ORANGE)


@plot_of("fit_crosscoder")
def crosscoder(
    adata: AnnData | MuData,
    *,
    key: str = "sae",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """Which features belong to which embedding: the share of each embedding in every feature of a crosscoder.

    Parameters
    ----------
    key
        Name of the crosscoder.

    Raises
    ------
    KeyError
        If there is no such crosscoder.

    See Also
    --------
    sparsesc.get.crosscoder : The same values as tables.

    Notes
    -----
    Each bar is a living feature. Within each kind, bars are ordered by the share of the first embedding. The numbers in
    parentheses are those of crosscoders that were fitted to shuffled cells, between which nothing can be shared.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> adata.obsm["X_first"], adata.obsm["X_rest"] = adata.obsm["X_pca"][:, :5], adata.obsm["X_pca"][:, 5:]
    >>> ssc.tl.fit_crosscoder(adata, use_reps=["X_first", "X_rest"], max_steps=50)
    >>> ax = ssc.pl.crosscoder(adata, show=False)
    >>> ax.get_ylabel()
    "Share of the feature's direction"
    """
    counts = get.crosscoder(adata, table="counts", key=key).set_index("kind")
    explained = get.crosscoder(adata, key=key)
    table = check.get_feature_table(adata, key)
    names = explained["embedding"].astype(str).tolist()
    shares = table[[f"share_{name}" for name in names]].to_numpy(float)
    kinds = table["kind"].astype(str).to_numpy()

    groups = [np.flatnonzero(kinds == kind) for kind in counts.index]
    groups = [rows[np.argsort(-shares[rows, 0], kind="stable")] for rows in groups]
    starts = np.cumsum([0, *[len(rows) + _GAP * (len(rows) > 0) for rows in groups]])
    total = starts[-1] - _GAP
    fig, panel = _utils.one_axes(ax, *_utils.figure_size(figsize, float(np.clip(0.045 * total, 4.6, 9.0)), 3.0))
    colors = [*_FIRST, *mpl.colormaps["Dark2"].colors][: len(names)]  # type: ignore[attr-defined]
    for start, rows in zip(starts, groups, strict=False):
        below = np.zeros(len(rows))
        for i, color in enumerate(colors):
            panel.bar(start + np.arange(len(rows)), shares[rows, i], bottom=below, width=1.0, color=color, lw=0)
            below += shares[rows, i]
    for name, fvu, color in zip(names, explained["fvu"], colors, strict=True):
        panel.bar([0], [0], color=color, label=f"{_style.wrap(name, 24, 1)} ({1 - fvu:.0%} explained)")
    middles = [start + (len(rows) - 1) / 2 for start, rows in zip(starts, groups, strict=False) if len(rows)]
    titles = [
        f"{kind}\n{row['n']:g}" + (f" ({row['n_shuffled']:.3g})" if np.isfinite(row["n_shuffled"]) else "")
        for (kind, row), rows in zip(counts.iterrows(), groups, strict=True)
        if len(rows)
    ]
    panel.set_xticks(middles, titles)
    panel.tick_params(axis="x", length=0)
    panel.set(xlim=(-1, total), ylim=(0, 1), ylabel="Share of the feature's direction")
    _style.legend(panel, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0)
    panel.grid(visible=False)
    _style.tidy(panel)
    return _utils.finish(fig, panel, name="crosscoder", ax=ax, show=show, save=save, return_fig=return_fig)
