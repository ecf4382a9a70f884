from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import Colormap, Normalize

from sparsesc._values import check_positive_int, listing
from sparsesc.door import _checks as check

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from mudata import MuData

    from ._utils import Drawn, Save

type Bound = float | str | None

_SCANPY_POINTS = 120_000 / (6.4 * 4.8)  # scanpy's point area is 120,000 / cells on axes of this many square inches
_LARGEST = 60.0  # points squared
_BASIS_NAMES = {"umap": "UMAP", "tsne": "tSNE", "pca": "PC", "diffmap": "DC", "draw_graph_fr": "FA"}


@plot_of("fit_sae")
def feature_umap(
    adata: AnnData | MuData,
    features: str | int | Sequence[str | int],
    *,
    key: str = "sae",
    basis: str = "X_umap",
    dimensions: tuple[int, int] = (0, 1),
    ncols: int = 4,
    size: float | None = None,
    cmap: str | Colormap | None = None,
    vmax: Bound | Sequence[Bound] = "p99",
    silent_color: str = _style.SILENT,
    title: str | Sequence[str] | None = None,
    frameon: bool | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """Activation of features on an embedding: silent cells in gray beneath, active cells on top, the strongest last.

    Parameters
    ----------
    features
        Names (or positions) of features; one panel each.
    basis
        Entry of ``obsm`` with the coordinates, cells x 2 or more; ``"umap"`` stands for ``"X_umap"``.
    dimensions
        The two columns of `basis` to draw.
    size
        Area of a point in points squared. ``None``: as in scanpy, 120,000 / cells, scaled by the size of the panel.
    cmap
        Color map of active cells. ``None``: pale orange to nearly black, legible with any color vision.
    vmax
        Activation that gets the last color: a number, ``"p99"`` for a percentile of the *active* cells (most cells are
        silent, so percentiles of all cells would often be 0), ``None`` for the largest; or one for each feature. The
        scale always starts at 0.
    silent_color
        Color of the cells where a feature is not active.
    title
        Titles of the panels. ``None``: the feature, with its name (or label) where ``uns[key]["features"]`` has one.
    frameon
        Draw a frame around the panels. ``None``: scanpy's setting.

    Returns
    -------
    the axes, or a list of them for several features

    Raises
    ------
    KeyError
        If there is no such sparse autoencoder, feature (lists the closest) or basis (lists what there is).
    ValueError
        If `basis` has fewer than two columns, or an option is out of its range.

    See Also
    --------
    sparsesc.pl.feature_card : One feature, with its labels and genes.
    sparsesc.pl.association : Many features against labels.

    Notes
    -----
    In vector files, points are an image from 5,000 cells on, or with scanpy's ``vector_friendly``. Cells without
    coordinates (NaN) are left out. Distances on a UMAP are not distances in the embedding that the features were
    learned from: judge a feature by :func:`sparsesc.pl.association`, not by how compact it looks here.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> axes = ssc.pl.feature_umap(adata, ["sae_0", "sae_1"], show=False)
    >>> [ax.get_title() for ax in axes]
    ['sae_0', 'sae_1']

    The feature that matches B cells best:

    >>> ssc.tl.feature_association(adata, "bulk_labels")
    >>> matches = ssc.get.association(adata).query("category == 'CD19+ B'").sort_values("auroc")
    >>> ax = ssc.pl.feature_umap(adata, matches["feature"].iloc[-1], title="B cells", show=False)
    """
    from scanpy import settings

    names = check.feature_names(adata, features, key)
    codes = check.get_codes(adata, key)
    coords, axis_names = coordinates(adata, basis, dimensions)
    ncols = check_positive_int(ncols, name="ncols")
    bounds = _bounds(vmax, len(names))
    table = check.get_feature_table(adata, key)
    titles = list(_style.feature_titles(table, names).values()) if title is None else _titles(title, len(names))
    columns = codes[:, table.index.astype(str).get_indexer(names)].tocsc()

    frame = getattr(settings, "_frameon", True) if frameon is None else frameon
    fig, axes = _utils.panels(len(names), ncols, _utils.panel_size(), ax)
    for i, (axis, text, bound) in enumerate(zip(axes, titles, bounds, strict=True)):
        values = columns[:, [i]].toarray().ravel()
        draw_activation(axis, coords, values, size=size, cmap=cmap, vmax=bound, silent_color=silent_color)
        axis.set_title(_style.wrap(text, 34, 3))
        axis.set(xlabel=axis_names[0], ylabel=axis_names[1])
        if not frame:
            axis.set_axis_off()
    return _utils.finish(fig, axes, name="feature_umap", ax=ax, show=show, save=save, return_fig=return_fig)


def draw_activation(
    ax: Axes,
    coords: np.ndarray,
    values: np.ndarray,
    *,
    size: float | None = None,
    cmap: str | Colormap | None = None,
    vmax: Bound = "p99",
    silent_color: str = _style.SILENT,
) -> tuple[PathCollection, PathCollection]:
    """Silent cells, then active cells (values > 0) from weak to strong, with a color bar if any is active."""
    placed = np.isfinite(coords).all(1)
    silent = np.flatnonzero(placed & (values <= 0))
    active = np.flatnonzero(placed & (values > 0))
    active = active[np.argsort(values[active], kind="stable")]
    size = point_size(ax, int(placed.sum())) if size is None else size
    style: dict[str, Any] = {"s": size, "linewidths": 0, "marker": "o", "rasterized": _utils.rasterize(len(coords))}
    below = ax.scatter(coords[silent, 0], coords[silent, 1], color=silent_color, zorder=1, **style)
    above = ax.scatter(
        coords[active, 0],
        coords[active, 1],
        c=values[active],
        cmap=_style.get_cmap(cmap, _style.activation_cmap()),
        norm=Normalize(0, upper_end(values[active], vmax)),
        zorder=2,
        **style,
    )
    ax.set(xticks=[], yticks=[])
    if len(active):
        over = bool(above.norm.vmax < values[active[-1]])
        bar = ax.figure.colorbar(above, ax=ax, pad=0.02, fraction=0.06, aspect=24, extend="max" if over else "neither")
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize="small", length=2)
        bar.ax.locator_params(axis="y", nbins=5)
    else:
        ax.text(0.5, 0.02, "no active cells", transform=ax.transAxes, ha="center", color=_style.MUTED, size="small")
    return below, above


def upper_end(active: np.ndarray, vmax: Bound) -> float:
    """The end of the color scale, never 0."""
    if isinstance(vmax, str):
        end = float(np.percentile(active, float(vmax[1:]))) if len(active) else 1.0
    elif vmax is None:
        end = float(active.max(initial=0))
    else:
        end = float(vmax)
    return end if end > 0 else 1.0


def point_size(ax: Axes, n_cells: int) -> float:
    """Scanpy's size of points, for axes as large as these."""
    box = ax.get_window_extent()
    inches = box.width * box.height / _utils.root_figure(ax).dpi ** 2
    return min(_LARGEST, _SCANPY_POINTS * inches / max(n_cells, 1))


def coordinates(
    adata: AnnData | MuData, basis: str, dimensions: tuple[int, int] = (0, 1)
) -> tuple[np.ndarray, tuple[str, str]]:
    """Two columns of an embedding, cells x 2, and the names of its axes.

    Raises
    ------
    KeyError
        If there is no such embedding.
    ValueError
        If it lacks these dimensions.
    """
    slot = basis if basis in adata.obsm else f"X_{basis}"
    if slot not in adata.obsm:
        msg = (
            f"Did not find adata.obsm[{basis!r}]. Available: {listing(adata.obsm.keys())}. "
            "Run sc.tl.umap first, or name another basis."
        )
        raise KeyError(msg)
    stored = adata.obsm[slot]
    shape = np.shape(stored)
    if len(shape) != 2 or shape[1] < 2:
        msg = f"adata.obsm[{slot!r}] must be cells x 2 (or more columns) to draw on, found shape {shape}."
        raise ValueError(msg)
    if not all(0 <= dimension < shape[1] for dimension in dimensions):
        msg = f"dimensions={dimensions} are out of range: adata.obsm[{slot!r}] has {shape[1]} columns, counted from 0."
        raise ValueError(msg)
    columns = (stored.iloc if isinstance(stored, pd.DataFrame) else stored)[:, list(dimensions)]
    coords = np.asarray(columns.toarray() if hasattr(columns, "toarray") else columns, dtype=np.float64)
    name = slot.removeprefix("X_")
    first, second = (f"{_BASIS_NAMES.get(name, name)}{dimension + 1}" for dimension in dimensions)
    return coords, (first, second)


def _bounds(vmax: Bound | Sequence[Bound], n: int) -> list[Bound]:
    bounds = [vmax] * n if vmax is None or isinstance(vmax, str | int | float | np.number) else list(vmax)
    if len(bounds) != n:
        msg = f"vmax must be one bound, or one for each of the {n} features, found {len(bounds)}."
        raise ValueError(msg)
    for bound in bounds:
        if bound is not None and not _is_bound(bound):
            msg = f"vmax must be a positive number, a percentile such as 'p99', or None, found {bound!r}."
            raise ValueError(msg)
    return bounds


def _is_bound(bound: object) -> bool:
    if isinstance(bound, str):
        number = bound.removeprefix("p")
        return bound != number and number.replace(".", "", 1).isdigit() and float(number) <= 100
    return isinstance(bound, int | float | np.number) and bool(np.isfinite(bound) and bound > 0)


def _titles(title: str | Sequence[str], n: int) -> list[str]:
    titles = [title] if isinstance(title, str) else list(title)
    if len(titles) != n:
        msg = f"title must give one text for each of the {n} features, found {len(titles)}."
        raise ValueError(msg)
    return titles
