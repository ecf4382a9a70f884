from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from sparsesc._values import check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save


@plot_of("stability")
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
    """How well other fits recover the same features, beside what chance gives.

    Parameters
    ----------
    bins
        Bars of the histogram.

    Notes
    -----
    Features among the gray ones, or left of the dotted line (random directions that have the shape of the dictionary),
    are no more alike in two fits than directions that no cell determined.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.stability(adata, n_fits=1)
    >>> ax = ssc.pl.stability(adata, show=False)
    >>> ax.get_ylabel()
    'Features'
    """
    bins = check_positive_int(bins, name="bins")
    slot = check.get_sae_slot(adata, key)
    if _keys.STABILITY not in slot:
        msg = f"Did not find adata.uns[{key!r}][{_keys.STABILITY!r}]. Run ssc.tl.stability first."
        raise KeyError(msg)
    summary = slot[_keys.STABILITY]
    table = check.get_feature_table(adata, key)
    values, chance = (table[name].dropna().to_numpy(float) for name in ("stability", "stability_random"))

    fig, panel = _utils.one_axes(ax, *_utils.figure_size(figsize, 4.6, 3.0))
    edges = np.linspace(min(0.0, values.min(), chance.min()), 1, bins + 1).tolist()
    panel.hist(chance, bins=edges, color=_style.STEM, label=f"random directions, mean {chance.mean():.2f}")
    label = f"features, mean {values.mean():.2f}"
    panel.hist(values, bins=edges, color=_style.BLUE, alpha=0.75, edgecolor="white", linewidth=0.4, label=label)
    shaped = float(summary["shaped"])
    panel.axvline(shaped, color="black", ls=":", lw=1.2, label=f"shaped like the dictionary, mean {shaped:.2f}")
    n_fits = int(slot[_keys.PARAMS][_keys.STABILITY]["n_fits"])
    panel.set(xlabel=f"Cosine with the matched feature (mean over {n_fits} refits)", ylabel="Features")
    panel.set_xlim(edges[0], 1)
    panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    _style.legend(panel, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _style.tidy(panel)
    return _utils.finish(fig, panel, name="stability", ax=ax, show=show, save=save, return_fig=return_fig)
