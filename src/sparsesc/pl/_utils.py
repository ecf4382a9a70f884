"""Figures and axes: where a plot is drawn, and what a plotting function returns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.transforms import ScaledTranslation, Transform

from sparsesc import _logging
from sparsesc._values import as_list, listing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec, GridSpecFromSubplotSpec

type Save = bool | str | os.PathLike[str] | None
type Drawn = Figure | Axes | list[Axes] | dict[str, Axes] | None

_FORMATS = (".svg", ".pdf", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".eps", ".webp")
_PANEL = (3.4, 3.0)


def panel_size(default: tuple[float, float] = _PANEL) -> tuple[float, float]:
    """Width and height of one panel in inches: the user's ``figure.figsize`` where it was changed, else compact."""
    width, height = mpl.rcParams["figure.figsize"]
    return default if [width, height] == mpl.rcParamsDefault["figure.figsize"] else (float(width), float(height))


def text_scale() -> float:
    """How much larger the user's text is than matplotlib's: figures grow with it where their size follows from text."""
    return max(1.0, float(mpl.rcParams["font.size"]) / 10)


def figure_size(figsize: tuple[float, float] | None, width: float, height: float) -> tuple[float, float]:
    """The user's size, or else the given inches, grown with the user's text."""
    return (width * text_scale(), height * text_scale()) if figsize is None else figsize


def inches_from(ax: Axes, corner: tuple[float, float]) -> Transform:
    """Coordinates in inches from a corner of the axes, (0, 0) being the lower left one."""
    return root_figure(ax).dpi_scale_trans + ScaledTranslation(*corner, ax.transAxes)  # type: ignore[arg-type]


def one_axes(ax: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    """The given axes, or those of a new figure of that size in inches."""
    if ax is not None:
        return root_figure(ax), ax
    fig = plt.figure(figsize=(width, height), layout="constrained")
    return fig, fig.add_subplot()


def panels(n: int, ncols: int, size: tuple[float, float], ax: Axes | None) -> tuple[Figure, list[Axes]]:
    """Axes of `n` panels of `size` inches each, row by row; the given axes when there is one panel.

    Raises
    ------
    ValueError
        If there are several panels and only one axes to draw on.
    """
    if ax is not None:
        if n > 1:
            msg = f"Cannot draw {n} panels on one ax. Choose one panel, or leave ax out."
            raise ValueError(msg)
        return root_figure(ax), [ax]
    ncols = min(ncols, n)
    nrows = -(-n // ncols)
    fig = plt.figure(figsize=(ncols * size[0], nrows * size[1]), layout="constrained")
    return fig, [fig.add_subplot(nrows, ncols, i + 1) for i in range(n)]


def area(
    ax: Axes | None, size: tuple[float, float], nrows: int, ncols: int, **kwargs: object
) -> tuple[Figure, GridSpec | GridSpecFromSubplotSpec]:
    """A grid over a new figure, or over the place of the given axes (which are switched off)."""
    if ax is None:
        fig = plt.figure(figsize=size, layout="constrained")
        return fig, fig.add_gridspec(nrows, ncols, **kwargs)
    ax.set_axis_off()
    spec = ax.get_subplotspec()
    fig = root_figure(ax)
    if fig.get_layout_engine() is None:  # nothing will make room for labels later
        kwargs = {"wspace": 0.45, "hspace": 0.55, **kwargs}
    if spec is not None:
        return fig, spec.subgridspec(nrows, ncols, **kwargs)
    box = ax.get_position()
    place = {"left": box.x0, "right": box.x1, "bottom": box.y0, "top": box.y1}
    return fig, (ax.get_figure() or fig).add_gridspec(nrows, ncols, **place, **kwargs)


def panel_row(
    ax: Axes | None, size: tuple[float, float], names: Sequence[str], **kwargs: object
) -> tuple[Figure, dict[str, Axes]]:
    """Named axes side by side, in a new figure or in the place of the given axes."""
    fig, grid = area(ax, size, 1, len(names), **kwargs)
    return fig, {name: fig.add_subplot(grid[0, i]) for i, name in enumerate(names)}


def root_figure(ax: Axes) -> Figure:
    """The whole figure that the axes belong to, also when they are in a subfigure."""
    fig = ax.get_figure(root=True)
    if fig is None:
        msg = "ax no longer belongs to a figure. Pass axes of an open figure."
        raise ValueError(msg)
    return fig


def finish(
    fig: Figure,
    axes: Axes | Sequence[Axes] | dict[str, Axes],
    *,
    name: str,
    ax: Axes | None,
    show: bool | None,
    save: Save,
    return_fig: bool | None,
) -> Drawn:
    """Save, show and return as scanpy does.

    The figure is returned with `return_fig`, the axes when nothing is shown, a single one without its list. A figure
    that was made here and saved is closed, unless it is returned; a figure that the user made stays open.
    """
    from scanpy import settings

    path = save_path(name, settings.autosave if save is None else save)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(path, bbox_inches="tight", dpi=_dots_per_inch())
        _logging.info(f"saved figure to {path}")
    if return_fig:
        return fig
    show = settings.autoshow if show is None else show
    if show:
        plt.show()
    if path is not None and ax is None:
        plt.close(fig)
    if show:
        return None
    if isinstance(axes, Sequence):
        return axes[0] if len(axes) == 1 else list(axes)
    return axes


def save_path(name: str, save: Save) -> Path | None:
    """Where a figure is saved: a path as it is, anything else as in scanpy under ``sc.settings.figdir``.

    Raises
    ------
    TypeError
        If `save` is none of these.
    """
    from scanpy import settings

    if save is None or save is False:
        return None
    ending = f".{settings.file_format_figs}"
    if isinstance(save, os.PathLike) or (isinstance(save, str) and os.path.dirname(save)):
        path = Path(save)
        return path if path.suffix.lower() in _FORMATS else path.with_name(path.name + ending)
    if save is not True and not isinstance(save, str):
        msg = f"save must be a bool, a suffix, or a path, found {type(save).__name__}."
        raise TypeError(msg)
    suffix = "" if save is True else save
    given = next((ext for ext in _FORMATS if suffix.lower().endswith(ext)), "")
    stem = name + suffix[: len(suffix) - len(given)] + settings.plot_suffix
    return Path(settings.figdir) / (stem + (given or ending))


def _dots_per_inch() -> float:
    """The user's ``savefig.dpi``; at least 150 where saving follows the screen."""
    dpi = mpl.rcParams["savefig.dpi"]
    return max(150.0, mpl.rcParams["figure.dpi"]) if isinstance(dpi, str) else float(dpi)


def rasterize(n_points: int) -> bool:
    """Whether points go into vector files as an image: from 5,000 on, or by scanpy's ``vector_friendly``."""
    from scanpy import settings

    return n_points >= 5000 or bool(getattr(settings, "_vector_friendly", False))


def known_names(names: str | Sequence[str] | None, known: Sequence[str], what: str, hint: str = "") -> list[str]:
    """One name or several, as a list; all that are known for ``None``.

    Raises
    ------
    KeyError
        If a name is not known, or there is none.
    """
    names = list(known) if names is None else as_list(names)
    missing = [name for name in names if name not in known]
    if missing or not names:
        msg = f"Did not find {what} {listing(missing)}. Available: {listing(known)}.{hint}"
        raise KeyError(msg)
    return names


def check_tested(table: pd.DataFrame, features: list[str], what: str) -> None:
    """Refuse features of which none has a row in the table."""
    if not set(features) & set(table["feature"]):
        msg = (
            f"No {what} for {listing(features)}: not tested (too few active cells?). "
            f"Tested were {listing(table['feature'].unique())}."
        )
        raise ValueError(msg)
