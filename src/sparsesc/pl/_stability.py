from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from sparsesc._values import check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys

from . import _style, _utils

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save


def stability(
    adata: AnnData | MuData,
    *,
    key: str = "sae",
    bins: int = 30,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """How well features are found again in other fits, beside what chance gives.

    Parameters
    ----------
    adata
        Cells with a sparse autoencoder after :func:`sparsesc.tl.stability`.
    key
        Name of the sparse autoencoder.
    bins
        Bars of the histogram.
    figsize
        Width and height in inches.
    ax
        Axes to draw on.
    show
        Show the figure. ``None``: ``sc.settings.autoshow``.
    save
        ``True`` or a suffix saves to ``sc.settings.figdir`` as ``stability{suffix}``, as in scanpy; a ``Path``, or a
        string with a folder in it, is taken as it is.
    return_fig
        Return the figure.

    Returns
    -------
    The figure with ``return_fig=True``; else the axes with ``show=False``; else ``None``. `adata` stays as it is.

    Raises
    ------
    KeyError
        If there is no such sparse autoencoder, or its stability was not computed.
    ValueError
        If an option is out of its range.

    Notes
    -----
    Features among the grey ones, or left of the dotted line (random directions that have the shape of the dictionary),
    are no more alike in two fits than directions that no cell determined.
    """
    bins = check_positive_int(bins, name="bins")
    slot = check.get_sae_slot(adata, key)
    if _keys.STABILITY not in slot:
        msg = f"Did not find adata.uns[{key!r}][{_keys.STABILITY!r}]. Run ssc.tl.stability first."
        raise KeyError(msg)
    summary = slot[_keys.STABILITY]
    table = check.get_feature_table(adata, key)
    values, chance = (table[name].dropna().to_numpy(float) for name in ("stability", "stability_random"))

    scale = _utils.text_scale()
    fig, panel = _utils.one_axes(ax, *((4.6 * scale, 3.0 * scale) if figsize is None else figsize))
    edges = np.linspace(min(0.0, values.min(), chance.min()), 1, bins + 1).tolist()
    panel.hist(chance, bins=edges, color=_style.STEM, label=f"random directions, mean {chance.mean():.2f}")
    panel.hist(
        values,
        bins=edges,
        color=_style.BLUE,
        alpha=0.75,
        edgecolor="white",
        linewidth=0.4,
        label=f"features, mean {values.mean():.2f}",
    )
    shaped = float(summary["shaped"])
    panel.axvline(shaped, color="black", ls=":", lw=1.2, label=f"shaped like the dictionary, mean {shaped:.2f}")
    n_fits = int(summary["params"]["n_fits"])
    panel.set(xlabel=f"Cosine with the matched feature (mean over {n_fits} refits)", ylabel="Features")
    panel.set_xlim(edges[0], 1)
    panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _style.tidy(panel)
    return _utils.finish(fig, panel, name="stability", ax=ax, show=show, save=save, return_fig=return_fig)
