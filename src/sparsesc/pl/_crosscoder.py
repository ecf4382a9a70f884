from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

from sparsesc import get
from sparsesc.door import _checks as check

from . import _style, _utils

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save

_GAP = 3.0  # bars between kinds
_FIRST = (_style.BLUE, _style.ORANGE)


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
    """Whose features are they? The share of each embedding in every feature of a crosscoder.

    Parameters
    ----------
    adata
        Cells after :func:`sparsesc.tl.fit_crosscoder`.
    key
        Name of the crosscoder.
    figsize
        Width and height in inches.
    ax
        Axes to draw on.
    show
        Show the figure. ``None``: ``sc.settings.autoshow``.
    save
        ``True`` or a suffix saves to ``sc.settings.figdir`` as ``crosscoder{suffix}``, as in scanpy; a ``Path``, or a
        string with a folder in it, is taken as it is.
    return_fig
        Return the figure.

    Returns
    -------
    The figure with ``return_fig=True``; else the axes with ``show=False``; else ``None``. `adata` stays as it is.

    Raises
    ------
    KeyError
        If there is no such crosscoder.

    Notes
    -----
    One bar a living feature, ordered by the share of the first embedding within each kind. The numbers in brackets are
    those of crosscoders that were fitted to shuffled cells, of which nothing can be shared.
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
    scale = _utils.text_scale()
    size = (float(np.clip(0.045 * total, 4.6, 9.0)) * scale, 3.0 * scale) if figsize is None else figsize
    fig, panel = _utils.one_axes(ax, *size)
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
    panel.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0)
    panel.grid(visible=False)
    _style.tidy(panel)
    return _utils.finish(fig, panel, name="crosscoder", ax=ax, show=show, save=save, return_fig=return_fig)
