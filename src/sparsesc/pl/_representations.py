from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import colors
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sparsesc._values import check_positive_int, listing
from sparsesc.door import _keys

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ._utils import Drawn, Save

_SHOWN = ("auroc", "f1", "coverage", "singular_labels", "probe_5", "lms_smi", "msas_smi", "msgs_smi_distinct")
_COUNTS = ("singular", "singular_labels")
_NAMES = {
    "singular": "strong singular\ncorrelations",
    "singular_share": "share of features with a\nstrong singular correlation",
    "singular_labels": "labels with a strong\nsingular correlation",
    "auroc": "best feature: AUROC",
    "coverage": "share of labels\nwith AUROC ≥ 0.9",
    "f1": "best feature: F1",
}
_COLORS = (_style.BLUE, _style.ORANGE, _style.GREEN, _style.PURPLE, "#E69F00", "#56B4E9")  # of Okabe and Ito
_NULL = "#d0d0d0"


@plot_of("compare_representations")
def representations(
    table: pd.DataFrame,
    metrics: str | Sequence[str] | None = None,
    *,
    label_key: str | Sequence[str] | None = None,
    null: bool = True,
    ncols: int = 4,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    """How well single features of several representations stand for labels, one panel for each metric.

    Parameters
    ----------
    metrics
        Metrics to show. ``None``: a choice of eight.
    label_key
        Label column (or columns) to show. ``None``: all, by color.
    null
        Show the mean over shuffled labels, plus and minus two standard deviations, as a gray bar.
    figsize
        Width and height of one panel in inches. ``None``: from the number of representations.

    Returns
    -------
    the axes, or a list of them for several metrics

    Raises
    ------
    KeyError
        If the table has no such metric or label column.
    TypeError
        If `table` is not such a table.
    ValueError
        If there are several metrics and only one `ax`, or an option is out of its range.

    Notes
    -----
    A ring marks the best representation of each label column. Differences smaller than those between two `rng` of
    :func:`sparsesc.tl.compare_representations` say nothing.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> table = ssc.tl.compare_representations(adata, ["X_sae", "X_pca"], "bulk_labels", n_permutations=5)
    >>> axes = ssc.pl.representations(table, ["auroc", "f1"], show=False)
    >>> [ax.get_title() for ax in axes]
    ['best feature: AUROC', 'best feature: F1']
    """
    if not isinstance(table, pd.DataFrame) or not set(_keys.REPRESENTATION_COLUMNS) <= set(table.columns):
        given = listing(table.columns) if isinstance(table, pd.DataFrame) else type(table).__name__
        msg = f"table must be what ssc.tl.compare_representations returns, found {given}."
        raise TypeError(msg)
    shown = _choose(table, "metric", [m for m in _SHOWN if m in set(table["metric"])] if metrics is None else metrics)
    keys = _choose(table, "label_key", label_key)
    names = _choose(table, "representation", None)
    ncols = check_positive_int(ncols, name="ncols")

    height = 0.75 + 0.24 * len(names) * max(1.0, 0.55 * len(keys))
    fig, axes = _utils.panels(len(shown), ncols, _utils.figure_size(figsize, 2.3, height), ax)
    labels = [_style.wrap(name, 28, 1) for name in names]
    for i, (axis, metric) in enumerate(zip(axes, shown, strict=True)):
        _panel(axis, table[table["metric"] == metric], metric, names, keys, null=null)
        axis.set_yticks(range(len(names)), labels if i % ncols == 0 or ax is not None else [])
    _legend(axes[0], keys, null=null and bool(table["null_mean"].notna().any()))
    return _utils.finish(fig, axes, name="representations", ax=ax, show=show, save=save, return_fig=return_fig)


def _choose(table: pd.DataFrame, column: str, names: str | Sequence[str] | None) -> list[str]:
    """Values of a column, the named ones or all, in order."""
    values = table[column]
    known = list(dict.fromkeys(values.astype(str)))
    if isinstance(values.dtype, pd.CategoricalDtype):
        known = [str(c) for c in values.cat.categories if str(c) in set(known)]
    return _utils.known_names(names, known, column)


def _panel(ax: Axes, rows: pd.DataFrame, metric: str, names: list[str], keys: list[str], *, null: bool) -> None:
    place = {name: i for i, name in enumerate(names)}
    step = 0.7 / len(keys)
    for j, key in enumerate(keys):
        part = rows[rows["label_key"].astype(str) == key]
        y = part["representation"].astype(str).map(place).to_numpy() + (j - (len(keys) - 1) / 2) * step
        value = part["value"].to_numpy(dtype=float)
        if null:
            mean, sd = part["null_mean"].to_numpy(dtype=float), part["null_sd"].fillna(0.0).to_numpy(dtype=float)
            ax.hlines(y, mean - 2 * sd, mean + 2 * sd, color=_NULL, lw=4, zorder=1)
            ax.plot(mean, y, "|", color=_style.MUTED, ms=5, mew=1, zorder=2)
        color = _COLORS[j % len(_COLORS)]
        best = value == np.nanmax(value) if np.isfinite(value).any() else np.zeros(len(value), bool)
        ax.scatter(value, y, s=26, color=color, zorder=3, linewidths=0)
        ax.scatter(value[best], y[best], s=80, facecolors="none", edgecolors=colors.to_rgba(color, 0.8), zorder=3)
    ax.set_title(_title(metric), fontsize="small")
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(visible=False)
    ax.grid(axis="y", color="#eeeeee", lw=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(labelsize="small")
    ax.margins(x=0.12)
    if metric in _COUNTS:
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
    _style.tidy(ax)
    ax.spines["left"].set_visible(False)


def _title(metric: str) -> str:
    """``probe_5`` -> best 5 features: AUROC, ``lms_smi_distinct`` -> LMS-SMI, no duplicates."""
    first, *rest = metric.split("_")
    if metric in _NAMES or first not in ("probe", "lms", "msas", "msgs") or not rest:
        return _NAMES.get(metric, metric)
    if first == "probe":
        return f"best {rest[0]} feature{'s' if rest[0] != '1' else ''} together:\nAUROC"
    return f"{first.upper()}-{rest[0].upper()}" + ("\nwithout duplicates" if len(rest) > 1 else "")


def _legend(ax: Axes, keys: list[str], *, null: bool) -> None:
    handles = [
        Line2D([], [], ls="", marker="o", ms=5, color=_COLORS[j % len(_COLORS)], label=_style.wrap(key, 20, 1))
        for j, key in enumerate(keys)
        if len(keys) > 1
    ]
    if null:
        handles.append(Line2D([], [], color=_NULL, lw=4, label="shuffled labels"))
    if handles:
        figure = _utils.root_figure(ax)
        if figure.get_layout_engine() is None:  # the user made this figure: nothing makes room outside
            ax.legend(handles=handles, frameon=False, fontsize="small")
        else:
            n = len(handles)
            figure.legend(handles=handles, loc="outside lower center", ncols=n, frameon=False, fontsize="small")
