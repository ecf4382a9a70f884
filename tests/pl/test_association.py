from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.patches import Rectangle

import sparsesc as ssc
from sparsesc.pl import _association


def shown(ax, *, swap=False):
    """The heat map as a table: features x categories of all blocks, without their numbers of cells."""
    blocks = [np.ma.filled(np.atleast_2d(mesh.get_array()), np.nan) for mesh in ax.collections]
    values = np.concatenate([b.T if swap else b for b in blocks], axis=1)
    x, y = ([t.get_text() for t in labels] for labels in (ax.get_xticklabels(), ax.get_yticklabels()))
    rows, columns = (x, y) if swap else (y, x)
    return pd.DataFrame(values, index=rows, columns=[c.rpartition(" (n=")[0] for c in columns])


@pytest.mark.parametrize("value", ["auroc", "pearson_r", "f1", "mean_in", "mean_out"])
@pytest.mark.parametrize("swap", [False, True])
def test_cells_are_the_values_of_the_table(described, value, swap):
    table = described.uns["sae"]["association"]
    ax = ssc.pl.association(described, "bulk_labels", value=value, n_shown=20, swap_axes=swap, show=False)
    drawn = shown(ax, swap=swap)
    assert drawn.shape == (20, 10)
    expected = table[table["key"] == "bulk_labels"].pivot(index="feature", columns="category", values=value)
    for feature in drawn.index:
        for category in described.obs["bulk_labels"].cat.categories:
            column = next(c for c in drawn.columns if category.startswith(c.rstrip("…")))
            assert drawn.loc[feature, column] == expected.loc[feature, category]


def test_columns_are_in_the_order_of_obs(described):
    described.obs["phase"] = described.obs["phase"].cat.reorder_categories(["S", "G1", "G2M"])
    described.uns["sae"]["association"] = described.uns["sae"]["association"].sample(frac=1, random_state=0)
    ax = ssc.pl.association(described, "phase", show=False)
    assert list(shown(ax).columns) == ["S", "G1", "G2M"]


def test_matches_lie_on_the_diagonal(described):
    drawn = shown(ssc.pl.association(described, "bulk_labels", show=False)).to_numpy()
    best = drawn.argmax(1)
    assert (np.diff(best) >= 0).all()
    for column in np.unique(best):
        assert (np.diff(drawn[best == column, column]) <= 0).all()


def test_the_best_feature_of_every_category_is_shown(described):
    table = described.uns["sae"]["association"]
    table = table[table["key"] == "bulk_labels"]
    best = table.loc[table.groupby("category", observed=True)["auroc"].idxmax(), "feature"]
    drawn = shown(ssc.pl.association(described, "bulk_labels", n_shown=10, show=False))
    assert set(best) <= set(drawn.index)


def test_clearest_of_a_small_table():
    wide = pd.DataFrame({"a": [0.9, 0.8, 0.7, 0.1], "b": [0.1, 0.2, 0.3, 0.4]}, index=list("wxyz"))
    assert _association.clearest(wide, 1) == ["w"]
    assert _association.clearest(wide, 3) == ["w", "z", "x"]  # z: nothing is better for b
    assert list(_association.on_diagonal(wide).index) == ["w", "x", "y", "z"]


def test_named_features(described):
    drawn = shown(ssc.pl.association(described, "phase", features=["sae_3", 5], show=False))
    assert set(drawn.index) == {"sae_3", "sae_5"}
    with pytest.raises(ValueError, match="None of these features has associations"):
        ssc.pl.association(described, features="sae_63")


def test_all_obs_columns_side_by_side(described):
    ax = ssc.pl.association(described, n_shown=12, show=False)
    assert len(ax.collections) == 2
    assert [t.get_text() for t in ax.texts] == ["bulk_labels", "phase"]
    assert shown(ax).shape == (12, 13)
    # one color scale for both, and a gap between them
    assert len({(m.norm.vmin, m.norm.vmax) for m in ax.collections}) == 1
    left, right = (m.get_coordinates()[0, :, 0] for m in ax.collections)
    assert right[0] > left[-1]


@pytest.mark.parametrize(("value", "ends"), [("auroc", (0, 1)), ("f1", (0, 1))])
def test_bounded_measures_keep_their_range(described, value, ends):
    norm = ssc.pl.association(described, value=value, show=False).collections[0].norm
    assert (norm.vmin, norm.vmax) == ends


def test_correlations_are_symmetric_around_0(described):
    ax = ssc.pl.association(described, "bulk_labels", value="pearson_r", show=False)
    norm = ax.collections[0].norm
    assert norm.vmin == -norm.vmax
    assert norm.vmax == np.abs(shown(ax).to_numpy()).max()
    norm = ssc.pl.association(described, value="pearson_r", vmin=-0.2, vmax=0.4, show=False).collections[0].norm
    assert (norm.vmin, norm.vmax) == (-0.2, 0.4)


def test_untested_pairs_are_blank(described):
    table = described.uns["sae"]["association"]
    table.loc[(table["category"] == "S") & (table["feature"] == "sae_3"), "auroc"] = np.nan
    drawn = shown(ssc.pl.association(described, "phase", features=["sae_3", "sae_4"], show=False))
    assert np.isnan(drawn.loc["sae_3", "S"])
    assert np.isfinite(drawn.loc["sae_4", "S"])


def test_strip_has_the_colors_of_scanpy(described):
    ax = ssc.pl.association(described, "bulk_labels", show=False)
    strip = [a for a in ax.artists if isinstance(a, Rectangle)] or [a for a in ax.patches if isinstance(a, Rectangle)]
    assert [colors.to_hex(p.get_facecolor()) for p in strip] == [
        colors.to_hex(c) for c in described.uns["bulk_labels_colors"]
    ]
    del described.uns["bulk_labels_colors"]
    ax = ssc.pl.association(described, "bulk_labels", show=False)
    assert not ax.artists
    assert not ax.patches


def test_labels_of_features_are_on_the_rows(described):
    described.uns["sae"]["features"]["label"] = ["cycling cells" if i == 3 else "" for i in range(64)]
    drawn = shown(ssc.pl.association(described, "phase", features=["sae_3", "sae_4"], show=False))
    assert set(drawn.index) == {"sae_3 · cycling cells", "sae_4"}


def test_column_of_obs_that_was_not_tested(described):
    with pytest.raises(KeyError, match=r"with 'louvain'. Available: 'bulk_labels', 'phase'.*feature_association"):
        ssc.pl.association(described, "louvain")


def test_unknown_value(described):
    with pytest.raises(ValueError, match="Unknown value: 'p'"):
        ssc.pl.association(described, value="p")


def test_column_of_obs_may_be_gone(described):
    """The table is enough."""
    del described.obs["phase"]
    ax = ssc.pl.association(described, "phase", show=False)
    assert list(shown(ax).columns) == ["G1", "G2M", "S"]


def test_categories_say_how_many_cells_they_have(described):
    ax = ssc.pl.association(described, "phase", show=False)
    sizes = described.obs["phase"].value_counts()
    assert [t.get_text() for t in ax.get_xticklabels()] == [f"{c} (n={sizes[c]})" for c in ("G1", "G2M", "S")]


@pytest.mark.parametrize("swap", [False, True])
def test_names_of_narrow_columns_are_whole(described, swap):
    """A name that is longer than its block is wide is not broken within a word, and leaves room for itself."""
    table = described.uns["sae"]["association"]
    phase = table[(table["key"] == "phase") & (table["category"] != "S")]
    names = ("condition", "experimental_batch", "sex")
    described.uns["sae"]["association"] = pd.concat([phase.assign(key=name) for name in names])
    fig = ssc.pl.association(described, n_shown=12, swap_axes=swap, return_fig=True)
    fig.canvas.draw()
    texts = fig.axes[0].texts
    assert ["".join(t.get_text().split("\n")) for t in texts] == list(names)
    assert texts[0].get_text() == "condition"
    boxes = [t.get_window_extent() for t in texts]
    assert all(not a.overlaps(b) for a, b in itertools.pairwise(boxes))


def test_the_only_column_is_not_repeated_in_each_row(described):
    features = described.uns["sae"]["features"]
    features["label"] = ["bulk_labels: Dendritic", *["phase: S"] * 63]
    of_one = ssc.pl.association(described, "bulk_labels", features=["sae_0"], show=False).get_yticklabels()
    assert [t.get_text() for t in of_one] == ["sae_0 · Dendritic"]
    of_both = ssc.pl.association(described, features=["sae_0"], show=False).get_yticklabels()
    assert [t.get_text() for t in of_both] == ["sae_0 · bulk_labels: Dendritic"]


def test_many_long_category_names_fit(described):
    table = described.uns["sae"]["association"]
    rng = np.random.default_rng(0)
    names = [f"a very long name of a cell type from a consortium, number {i}" for i in range(60)]
    described.uns["sae"]["association"] = pd.concat(
        [table[table["category"] == "S"].assign(key="type", category=n, auroc=rng.uniform(size=63)) for n in names]
    )
    fig = ssc.pl.association(described, return_fig=True)
    fig.canvas.draw()
    ticks = fig.axes[0].get_xticklabels()
    boxes = [t.get_window_extent() for t in ticks]
    # at 45 degrees, neighbors are apart when their anchors are further apart than a line is high
    pitch = np.diff([fig.axes[0].transData.transform((x, 0))[0] for x in fig.axes[0].get_xticks()])
    assert pitch.min() / np.sqrt(2) > 0.8 * ticks[0].get_fontsize() * fig.dpi / 72
    assert min(b.y0 for b in boxes) >= -1
