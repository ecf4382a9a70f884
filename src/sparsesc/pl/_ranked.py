"""A ranked list as points on stems: genes or gene sets of one feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_ranked(
    ax: Axes, labels: Sequence[str], values: np.ndarray, padj: np.ndarray, alpha: float, n_rows: int
) -> None:
    """The first label on top, room for `n_rows`; filled points where `padj` < `alpha`, rings elsewhere."""
    sure = padj < alpha
    y = np.arange(len(values))
    colors = [_style.ORANGE if v < 0 else _style.BLUE for v in values]
    ax.hlines(y, 0, values, color=_style.STEM, lw=1.5, zorder=1)
    ax.scatter(
        values, y, s=30, c=[c if s else "white" for c, s in zip(colors, sure, strict=True)], edgecolors=colors, zorder=2
    )
    _style.list_rows(ax, labels, n_rows)
    low, high = min(0.0, np.nanmin(values, initial=0.0)), max(0.0, np.nanmax(values, initial=0.0))
    room = 0.08 * (high - low or 1.0)
    ax.set_xlim(low - room * (low < 0), high + room * (high > 0 or low == 0))
    ax.locator_params(axis="x", nbins=4)
    if low < 0 < high:
        ax.axvline(0, color=_style.MUTED, lw=0.8, zorder=0)
    if not sure.all():
        # the list falls off downward, so this corner is free
        side, x = ("right", 0.99) if high > -low else ("left", 0.01)
        note: dict[str, Any] = {"ha": side, "va": "bottom", "size": "x-small", "color": _style.MUTED}
        ax.text(x, 0.01, f"rings: padj ≥ {alpha:g}", transform=ax.transAxes, **note)
    if len(values) == 0:
        ax.text(0.5, 0.5, "not tested", transform=ax.transAxes, ha="center", color=_style.MUTED)
