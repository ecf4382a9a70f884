from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colors

import sparsesc as ssc
from sparsesc.pl import _style


def labels(ax):
    return [t.get_text() for t in ax.get_yticklabels()]


def test_genes_are_those_of_the_table_best_on_top(described):
    table = described.uns["sae"]["genes"]
    ax = ssc.pl.genes(described, "sae_4", n_genes=7, show=False)
    rows = table[table["feature"] == "sae_4"].head(7)
    assert labels(ax) == list(rows["gene"])
    points = ax.collections[1].get_offsets()
    np.testing.assert_array_equal(points[:, 0], rows["score"])
    np.testing.assert_array_equal(points[:, 1], np.arange(7))
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_filled_points_are_significant(described):
    table = described.uns["sae"]["genes"]
    rows = table.index[table["feature"] == "sae_4"][:5]
    table.loc[rows, "padj"] = [0.001, 0.2, 0.04, 0.05, 1.0]
    ax = ssc.pl.genes(described, "sae_4", n_genes=5, show=False)
    faces = [colors.to_hex(c) for c in ax.collections[1].get_facecolor()]
    assert [f != "#ffffff" for f in faces] == [True, False, True, False, False]
    assert [t.get_text() for t in ax.texts] == ["rings: padj ≥ 0.05"]
    ax = ssc.pl.genes(described, "sae_4", n_genes=5, alpha=1.1, show=False)
    assert not ax.texts


def test_sign_has_a_color(described):
    table = described.uns["sae"]["genes"]
    rows = table.index[table["feature"] == "sae_4"][:2]
    table.loc[rows, ["score", "padj"]] = [[5.0, 0.001], [-4.0, 0.001]]
    ax = ssc.pl.genes(described, "sae_4", n_genes=2, show=False)
    assert [colors.to_hex(c).upper() for c in ax.collections[1].get_facecolor()] == [_style.BLUE, _style.ORANGE]
    low, high = ax.get_xlim()
    assert low < -4
    assert high > 5


def test_log_fold_change(described):
    table = described.uns["sae"]["genes"]
    ax = ssc.pl.genes(described, "sae_4", value="logfc", show=False)
    np.testing.assert_array_equal(
        ax.collections[1].get_offsets()[:, 0], table.loc[table["feature"] == "sae_4", "logfc"][:10]
    )
    assert ax.get_xlabel() == "log2 fold change"
    with pytest.raises(ValueError, match="Unknown value: 'pval'"):
        ssc.pl.genes(described, "sae_4", value="pval")


def test_strongest_features_are_chosen(described):
    table = described.uns["sae"]["genes"]
    axes = ssc.pl.genes(described, show=False)
    best = table.groupby("feature")["score"].max().sort_values(ascending=False)
    assert [ax.get_title() for ax in axes] == list(best.index[:8])


def test_one_scale_for_all(described):
    axes = ssc.pl.genes(described, ["sae_1", "sae_2"], sharex=True, show=False)
    assert axes[0].get_xlim() == axes[1].get_xlim()
    axes = ssc.pl.genes(described, ["sae_1", "sae_2"], show=False)
    assert axes[0].get_xlim() != axes[1].get_xlim()


def test_feature_that_was_not_tested(described):
    axes = ssc.pl.genes(described, ["sae_1", "sae_63"], show=False)
    assert [t.get_text() for t in axes[1].texts] == ["not tested"]
    with pytest.raises(ValueError, match="No genes for 'sae_63': not tested"):
        ssc.pl.genes(described, "sae_63")


def test_empty_table(described):
    described.uns["sae"]["genes"] = described.uns["sae"]["genes"].head(0)
    with pytest.raises(ValueError, match=r"\['genes'\] is empty. Run ssc.tl.feature_genes again"):
        ssc.pl.genes(described)
