from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from matplotlib.patheffects import withStroke

from sparsesc._values import check_choice, check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys

from . import _style, _utils
from ._docs import plot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ._utils import Drawn, Save

_CHOSEN = 8
_MEASURES = {"mean": "Mean activation", "active": "Share of active cells"}
_VALUES = {"logfc": "log2 fold change", "score": "t", "effect": "difference"}
_SMALLEST = 1e-300


@plot_of("differential_features")
def differential(
    adata: AnnData | MuData,
    features: str | int | Sequence[str | int] | None = None,
    *,
    key: str = "sae",
    kind: Literal["volcano", "samples"] | None = None,
    measure: Literal["mean", "active"] | None = None,
    group: str | None = None,
    condition: str | None = None,
    value: Literal["logfc", "score", "effect"] = "logfc",
    n_labels: int = 6,
    alpha: float = 0.05,
    ncols: int = 4,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Save = None,
    return_fig: bool | None = None,
) -> Drawn:
    r"""Features that differ between conditions: all tests at once, or the samples behind some of them.

    Parameters
    ----------
    features
        Features to show. ``None``: all in a volcano, the eight with the smallest p-values among ``"samples"``.
    kind
        ``"volcano"``: change against p-value, one panel for each group. ``"samples"``: one panel for each feature with
        one point for each sample; lines join samples that were seen under several conditions. ``None``: samples when
        features are named, otherwise the volcano.
    measure
        ``"mean"`` (activation) or ``"active"`` (share of cells). ``None``: the one with more of the shown features
        below `alpha`; the mean, if both have as many. A note says which features only the other measure finds.
    group
        Show this group only. ``None``: all groups in a volcano; among ``"samples"`` the one with the smallest p-value.
    condition
        Compare this condition with the reference. ``None``: all in ``"samples"``, the one with the smallest p-value in
        a volcano.
    value
        Column of the table on the horizontal axis of the volcano.
    n_labels
        Features to name in each panel of the volcano, of those with `padj` below `alpha`.
    alpha
        Limit of the adjusted p-value.

    Returns
    -------
    the axes, or a list of them for several panels

    Raises
    ------
    ValueError
        If the features, the group, the condition or the measure were not tested, or an option is out of its range.

    See Also
    --------
    sparsesc.get.differential : The tests as a table.

    Notes
    -----
    The samples are computed from the codes as they are now, with the columns of ``obs`` that the test used; the means
    they show are not corrected for covariates.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> adata.obs["donor"] = [f"donor {i % 6}" for i in range(adata.n_obs)]
    >>> adata.obs["treated"] = ["yes" if i % 2 else "no" for i in range(adata.n_obs)]
    >>> ssc.tl.differential_features(adata, "treated", sample_key="donor")
    >>> ax = ssc.pl.differential(adata, show=False)
    >>> ax.get_title()
    'yes vs no\n(n=3 vs 3 samples)'
    >>> axes = ssc.pl.differential(adata, ["sae_0", "sae_1"], show=False)
    >>> len(axes)
    2
    """
    if kind is None:
        kind = "volcano" if features is None else "samples"
    check_choice(kind, ("volcano", "samples"), name="kind")
    check_choice(value, _VALUES, name="value")
    ncols = check_positive_int(ncols, name="ncols")
    table = check.get_table(adata, key, _keys.DIFFERENTIAL)
    for column in ("feature", "group", "measure", "condition"):
        table[column] = table[column].astype(str)
    names = None if features is None else check.feature_names(adata, features, key)
    if names is not None:
        _utils.check_tested(table, names, "tests")
    measured = [m for m in _MEASURES if m in set(table["measure"])]
    if measure is not None:
        check_choice(measure, measured, name="measure")
    if group is not None:
        check_choice(group, table["group"].unique(), name="group")
        table = table[table["group"] == group]
    if condition is not None:
        check_choice(condition, table["condition"].unique(), name="condition")
        table = table[table["condition"] == condition]
    within = table if names is None else table[table["feature"].isin(names)]
    shown_measure, elsewhere = _with_most_hits(within, measured, measure, alpha)
    table = table[table["measure"] == shown_measure]
    if names is not None:
        table = table[table["feature"].isin(names)]
        _utils.check_tested(table, names, "tests of this group and condition")

    known = check.get_feature_table(adata, key)
    scale = _utils.text_scale()
    if kind == "volcano":
        condition = condition or table["condition"].iloc[0]
        table = table[table["condition"] == condition]
        groups = list(dict.fromkeys(table["group"]))
        fig, axes = _utils.panels(len(groups), ncols, _utils.panel_size((3.4 * scale, 3.0 * scale)), ax)
        for axis, name in zip(axes, groups, strict=True):
            rows = table[table["group"] == name]
            _volcano(axis, rows, known, value=value, n_labels=n_labels, alpha=alpha)
            _note(axis, elsewhere[(elsewhere["group"] == name) & (elsewhere["condition"] == condition)], known)
            n, n_reference = rows[["n_samples", "n_samples_reference"]].max()
            versus = f"{condition} vs {rows['reference'].iloc[0]}"
            title = versus if name == "all" and len(groups) == 1 else f"{name}: {versus}"
            axis.set_title(f"{_style.wrap(title, 36, 2)}\n(n={n} vs {n_reference} samples)", size="medium")
    else:
        shown = table["feature"].drop_duplicates().head(_CHOSEN).tolist() if names is None else names
        shown = [name for name in shown if name in set(table["feature"])]
        slot = check.get_sae_slot(adata, key)
        samples, paired = slot[_keys.DIFFERENTIAL_SAMPLES], bool(slot[_keys.PARAMS]["differential_features"]["paired"])
        units, levels = pd.DataFrame(samples["units"]), np.asarray(samples[shown_measure], dtype=np.float64)
        titles = _style.feature_titles(known, shown)
        fig, axes = _utils.panels(len(shown), ncols, _utils.panel_size((2.3 * scale, 2.7 * scale)), ax)
        for axis, name in zip(axes, shown, strict=True):
            best = table[table["feature"] == name].iloc[0]
            chosen = None if condition is None else [str(best["reference"]), condition]
            here = units.assign(value=levels[:, known.index.astype(str).get_loc(name)])
            here = here[here["group"].astype(str) == best["group"]]
            _samples(axis, here, shown_measure, chosen, paired=paired)
            within = "" if best["group"] == "all" else f"{best['group']}, "
            axis.set_title(_style.wrap(titles[name], 28, 4) + f"\n{within}padj {best['padj']:.1g}", size="medium")
    drawn = axes[0] if len(axes) == 1 else axes
    return _utils.finish(fig, drawn, name="differential", ax=ax, show=show, save=save, return_fig=return_fig)


def _with_most_hits(
    table: pd.DataFrame, measured: list[str], measure: str | None, alpha: float
) -> tuple[str, pd.DataFrame]:
    """The measure that finds most, unless one is given, and the tests below `alpha` that only others find."""
    hits = table[table["padj"] < alpha]
    counts = hits["measure"].value_counts()
    best = measure or max(measured, key=lambda name: counts.get(name, 0))  # the first of equals
    shown = hits[hits["measure"] == best]
    places = ["feature", "group", "condition"]
    found = set(shown[places].itertuples(index=False, name=None))
    others = hits[hits["measure"] != best]
    new = [place not in found for place in others[places].itertuples(index=False, name=None)]
    return best, others[np.array(new, dtype=bool)]


def _note(ax: Axes, others: pd.DataFrame, known: pd.DataFrame) -> None:
    """Below the axis: what the measure that is not shown finds besides."""
    if others.empty:
        return
    what = _MEASURES[str(others["measure"].iloc[0])].lower()
    first, rest = str(others["feature"].iloc[0]), len(others) - 1
    title = _style.feature_titles(known, [first])[first]
    text = f"by {what}: {title}" + (f" and {rest} more" if rest else "")
    ax.set_xlabel(f"{ax.get_xlabel()}\n{_style.wrap(text, 40, 2)}")


def _volcano(ax: Axes, rows: pd.DataFrame, known: pd.DataFrame, *, value: str, n_labels: int, alpha: float) -> None:
    x = rows[value].to_numpy(float)
    y = -np.log10(np.maximum(rows["pval"].to_numpy(float), _SMALLEST))
    sure = rows["padj"].to_numpy(float) < alpha
    color = np.where(~sure, _style.STEM, np.where(x > 0, _style.BLUE, _style.ORANGE))
    order = np.argsort(sure, kind="stable")
    ax.scatter(
        x[order], y[order], s=18, c=color[order], linewidths=0, alpha=0.9, zorder=2, rasterized=_utils.rasterize(len(x))
    )
    ax.axvline(0, color=_style.MUTED, lw=0.6, zorder=0)
    reach = float(np.abs(x).max(initial=0)) or 1.0
    ax.set_xlim(-1.15 * reach, 1.15 * reach)
    ax.set_ylim(0, 1.12 * (float(y.max(initial=0)) or 1.0))
    what = _MEASURES[str(rows["measure"].iloc[0])].lower() if len(rows) else ""
    ax.set(xlabel=f"{_VALUES[value]} of {what}", ylabel="-log10 p")
    named = np.flatnonzero(sure)[np.argsort(-y[sure], kind="stable")][:n_labels]
    titles = _style.feature_titles(known, list(rows["feature"].iloc[named]))
    _label(ax, x[named], y[named], [_style.wrap(titles[f], 28, 3) for f in rows["feature"].iloc[named]])
    if not sure.any():
        ax.text(0.99, 0.98, f"no padj < {alpha:g}", transform=ax.transAxes, ha="right", va="top", color=_style.MUTED)
    _style.tidy(ax)


def _label(ax: Axes, x: np.ndarray, y: np.ndarray, names: list[str]) -> None:
    """Names towards the middle line, moved down where they would cover each other."""
    step = 0.062 * ax.get_ylim()[1]
    for side in (False, True):
        below = np.inf
        for i in np.argsort(-y):
            if (x[i] > 0) != side:
                continue
            half = 0.5 * step * (1 + names[i].count("\n"))
            height = min(y[i], below - half)
            below = height - half
            ax.annotate(
                names[i],
                (x[i], y[i]),
                xytext=(x[i] - np.copysign(0.06 * ax.get_xlim()[1], x[i]), height),
                ha="right" if side else "left",
                va="center",
                size="x-small",
                zorder=1,  # no point is hidden by a name
                path_effects=[withStroke(linewidth=2, foreground="white")],
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": _style.STEM, "shrinkA": 0, "shrinkB": 2},
            )


def _samples(ax: Axes, units: pd.DataFrame, measure: str, conditions: list[str] | None, *, paired: bool) -> None:
    """One point per sample, the mean of each condition as a line."""
    conditions = [str(c) for c in units["condition"].cat.categories if conditions is None or c in conditions]
    units = units.astype({"condition": str})
    units = units[units["condition"].isin(conditions)]
    values = units["value"].to_numpy()
    place = units["condition"].map({c: i for i, c in enumerate(conditions)}).to_numpy(float)
    # points side by side, in the same order in all panels
    among = units.groupby("condition")["sample"].rank(method="first").to_numpy()
    crowd = units.groupby("condition")["sample"].transform("size").to_numpy()
    x = place + (0 if paired else 0.3 * (among / (crowd + 1) - 0.5))
    if paired:
        for rows in units.reset_index(drop=True).groupby("sample").groups.values():
            rows = np.asarray(rows)[np.argsort(x[rows])]
            ax.plot(x[rows], values[rows], color=_style.STEM, lw=0.8, zorder=1)
    ax.scatter(x, values, s=22, color=_style.BLUE, linewidths=0, alpha=0.85, zorder=2)
    for i in range(len(conditions)):
        if (place == i).any():
            mean = values[place == i].mean()
            ax.hlines(mean, i - 0.22, i + 0.22, color="black", lw=1.6, zorder=3)
    ax.set_xlim(-0.5, len(conditions) - 0.5)
    ax.set_ylim(bottom=0)
    crowded = len(conditions) * max(len(c) for c in conditions) > 20
    named = [f"{_style.wrap(c, 16, 2)}\n(n={int((place == i).sum())})" for i, c in enumerate(conditions)]
    ax.set_xticks(range(len(conditions)), named)
    if crowded:
        ax.tick_params(axis="x", labelrotation=30)
    ax.set_ylabel(_MEASURES[measure])
    ax.locator_params(axis="y", nbins=5)
    _style.tidy(ax)
