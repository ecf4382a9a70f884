from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from sparsesc.door import _checks as check
from sparsesc.door import _keys

from . import _style, _utils

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save


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

    Parameters
    ----------
    adata
        Cells with the results of :func:`sparsesc.tl.feature_locality`.
    key
        Name of the sparse autoencoder.
    figsize
        Width and height in inches. ``None``: from the number of categories.
    ax
        Axes to draw on.
    show
        Show the figure. ``None``: ``sc.settings.autoshow``.
    save
        ``True`` or a suffix saves to ``sc.settings.figdir`` as ``locality{suffix}``, as in scanpy;
        a ``Path``, or a string with a folder in it, is taken as it is.
    return_fig
        Return the figure.

    Returns
    -------
    The figure with ``return_fig=True``; else with ``show=False`` the axes; else ``None``. `adata` stays as it is.

    Raises
    ------
    KeyError
        If there is no such sparse autoencoder, or localities were not computed.

    Notes
    -----
    A regional feature counts in each of its categories. Rare categories have fewer features also because it takes cells
    to show a difference.
    """
    table = check.get_table(adata, key, _keys.LOCALITY)
    asked = check.get_sae_slot(adata, key)[_keys.PARAMS]["feature_locality"]
    counts = count_features(table)
    words = check.get_feature_table(adata, key)["locality"].astype(str).value_counts()
    sizes = table.groupby("category", observed=True)["n_cells"].first().reindex(counts.index)

    rows = [f"{_style.wrap(str(c), 40, 1)} ({n:,})" for c, n in sizes.items()]
    width, height = 3.6 + 0.07 * max(map(len, rows)), 1.1 + 0.24 * len(rows)
    scale = _utils.text_scale()
    fig, bars = _utils.one_axes(ax, *((scale * width, scale * height) if figsize is None else figsize))
    y = np.arange(len(rows))
    bars.barh(y, counts["local"], color=_style.BLUE, label=f"local ({words.get('local', 0)})", height=0.75)
    bars.barh(
        y,
        counts["regional"],
        left=counts["local"],
        color=_style.ORANGE,
        label=f"regional ({words.get('regional', 0)})",
        height=0.75,
    )
    bars.set_yticks(y, rows)
    bars.set(ylim=(len(rows) - 0.4, -0.6), xlabel="features that are stronger there")
    bars.tick_params(axis="y", length=0, labelsize="small")
    bars.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    others = ", ".join(f"{words.get(word, 0)} {word}" for word in ("global", "unclear"))
    bars.legend(
        title=f"{asked['groupby']}\n(and {others})",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        alignment="left",
        fontsize="small",
        title_fontsize="small",
    )
    bars.grid(visible=False, axis="y")
    _style.tidy(bars)
    return _utils.finish(fig, bars, name="locality", ax=ax, show=show, save=save, return_fig=return_fig)


def count_features(table: pd.DataFrame) -> pd.DataFrame:
    """Local and regional features of each category, in the order of the table."""
    found = table[table["stronger"].astype(bool)]
    n_raised = found["feature"].astype(str).map(found["feature"].astype(str).value_counts())
    order = pd.Index(dict.fromkeys(table["category"].astype(str)))
    kinds = {"local": n_raised == 1, "regional": n_raised > 1}
    return pd.DataFrame(
        {k: found.loc[m, "category"].astype(str).value_counts().reindex(order, fill_value=0) for k, m in kinds.items()}
    )
