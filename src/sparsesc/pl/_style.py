"""Colors and text: color scales that survive color blindness and gray print, names that fit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import colors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from mudata import MuData

SILENT = "#dcdcdc"  # cells where a feature is not active
MISSING = "#f2f2f2"  # no value
STEM = "#bdbdbd"
MUTED = "#595959"  # remarks

# Of Okabe and Ito: distinct with any color vision.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"


def activation_cmap() -> colors.Colormap:
    """From pale orange to nearly black: darker is stronger, and the weakest still stands out from the silent gray."""
    shades = mpl.colormaps["magma_r"](np.linspace(0.14, 0.94, 256))
    return colors.ListedColormap(shades, name="activation")


def get_cmap(cmap: str | colors.Colormap | None, default: str | colors.Colormap) -> colors.Colormap:
    """A copy of the color map, or of the default, with missing values in light gray."""
    return mpl.colormaps.get_cmap(default if cmap is None else cmap).with_extremes(bad=MISSING)


def feature_titles(table: pd.DataFrame, features: list[str]) -> dict[str, str]:
    """Title of each feature: its number, and its name or, where none was given, its label."""
    known = next((column for column in ("name", "label") if column in table), None)
    if known is None:
        return {f: f for f in features}
    names = dict(zip(table.index.astype(str), table[known], strict=True))
    return {f: f if is_blank(names[f]) else f"{f} · {names[f].removesuffix(f' ({f})')}" for f in features}


def is_blank(label: object) -> bool:
    """Whether a label is empty or missing."""
    return not isinstance(label, str) or not label.strip() or label.strip().lower() in {"nan", "none"}


def wrap(text: str, width: int = 32, max_lines: int = 3) -> str:
    """Text in lines of at most `width` characters, broken at spaces, underscores and hyphens; dots where it was cut."""
    lines = [""]
    for piece in re.findall(r"[^\s_\-/]*[\s_\-/]+|[^\s_\-/]+", text.strip()):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        while len(piece.rstrip()) > width:
            lines[-1], piece = piece[:width], piece[width:]
            lines.append("")
        lines[-1] += piece
    if len(lines) > max_lines:
        cut = "".join(lines[max_lines - 1 :])[: width - 1].rstrip()
        lines = [*lines[: max_lines - 1], f"{cut}…"]
    lines = [line.rstrip() for line in lines if line.strip()]
    return "\n".join(lines).replace("$", r"\$")  # matplotlib would read formulas between dollar signs


def category_colors(adata: AnnData | MuData, groupby: str, categories: list[str]) -> dict[str, str] | None:
    """Colors that scanpy stored for `groupby`, by category; none unless each category has one."""
    stored = adata.uns.get(f"{groupby}_colors")
    if stored is None or groupby not in adata.obs.columns:
        return None
    known = pd.Categorical(adata.obs[groupby]).categories.astype(str)
    if len(stored) < len(known) or not all(colors.is_color_like(c) for c in stored):
        return None
    by_name: Mapping[str, str] = dict(zip(known, map(str, stored), strict=False))
    return {c: by_name[c] for c in categories} if set(categories) <= set(by_name) else None


def tidy(ax: Axes) -> None:
    """Hide the frame but for the two axes that are read."""
    ax.spines[["top", "right"]].set_visible(False)


def legend(ax: Axes, **kwargs: Any) -> Legend:
    """A legend in small letters without a frame."""
    return ax.legend(**{"frameon": False, "fontsize": "small"} | kwargs)


def list_rows(ax: Axes, labels: Sequence[str], n_rows: int = 0, **kwargs: Any) -> None:
    """Rows with labels, the first on top, with room for `n_rows`; what is drawn in a row is its line."""
    ax.set_yticks(range(len(labels)), labels)
    ax.tick_params(axis="y", length=0, **kwargs)
    ax.set_ylim(max(n_rows, len(labels)) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    tidy(ax)


def heat_map_colorbar(fig: Figure, ax: Axes, mesh: ScalarMappable, label: str, height: float) -> None:
    """A short color bar beside the top of a heat map that is `height` inches high."""
    bar = fig.colorbar(mesh, ax=ax, pad=0.02, shrink=min(1.0, 2.0 / height), aspect=14, anchor=(0, 1))
    bar.set_label(label)
    bar.outline.set_visible(False)


def percent(share: float, _: object) -> str:
    """Labels of an axis of shares."""
    return f"{100 * share:g}%"


def limits(values: np.ndarray, *, center: float | None, full: tuple[float, float] | None) -> tuple[float, float]:
    """Ends of a color scale: the full range of a bounded measure, else symmetric around `center`, or from 0 up."""
    if full is not None:
        return full
    values = values[np.isfinite(values)]
    if center is None:
        return min(0.0, float(values.min(initial=0))), float(values.max(initial=0)) or 1.0
    reach = float(np.abs(values - center).max(initial=0)) or 1.0
    return center - reach, center + reach
