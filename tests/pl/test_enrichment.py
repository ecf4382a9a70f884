from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors

import sparsesc as ssc
from sparsesc.pl import _enrichment


def shown(ax):
    """Score, area and edge of each dot by feature and wrapped term."""
    dots = ax.collections[0]
    x, y = ([t.get_text() for t in labels] for labels in (ax.get_xticklabels(), ax.get_yticklabels()))
    at = dots.get_offsets()
    level = {round(v, 6): t for v, t in zip(ax.get_yticks(), y, strict=True)}
    return pd.DataFrame(
        {
            "feature": [x[int(i)] for i in at[:, 0]],
            "term": [level[round(v, 6)] for v in at[:, 1]],
            "score": dots.get_array(),
            "area": dots.get_sizes(),
            "edge": [colors.to_hex(c, keep_alpha=True) == "#000000ff" for c in dots.get_edgecolor()],
        }
    )


@pytest.fixture
def few(described):
    """Three features, four terms, values that can be checked by eye."""
    rows = [
        ("sae_1", "A", 5.0, 1e-6),
        ("sae_1", "B", 4.0, 1e-3),
        ("sae_1", "C", -8.0, 1e-12),
        ("sae_2", "B", 6.0, 1e-20),
        ("sae_2", "A", -1.0, 0.5),
        ("sae_3", "D", 1.0, 0.3),
        ("sae_3", "A", 0.5, 0.9),
    ]
    table = pd.DataFrame(rows, columns=["feature", "term", "score", "padj"])
    described.uns["sae"]["enrichment"] = table.assign(pval=table["padj"] / 10, n_genes=20, genes="CD3D,CD3E")
    return described


def test_color_is_the_score_and_size_the_evidence(few):
    dots = shown(ssc.pl.enrichment(few, max_log10=10, show=False)).set_index(["feature", "term"])
    table = few.uns["sae"]["enrichment"].set_index(["feature", "term"])
    for pair, dot in dots.iterrows():
        assert dot["score"] == table.loc[pair, "score"]
        assert dot["edge"] == (table.loc[pair, "padj"] < 0.05)
    areas = dots["area"]
    assert areas["sae_2", "B"] == areas.max()  # 1e-20 is capped at 1e-10
    assert areas["sae_2", "B"] > areas["sae_1", "A"] > areas["sae_1", "B"] > areas["sae_2", "A"]


def test_terms_are_the_best_positive_and_significant(few):
    ax = ssc.pl.enrichment(few, n_terms=2, show=False)
    # sae_2 has the smallest p; C is negative for its only feature; the second best of sae_3 is not significant
    assert [t.get_text() for t in ax.get_xticklabels()] == ["sae_2", "sae_1", "sae_3"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["B", "A", "D"]


def test_features_that_share_their_best_term_stand_side_by_side(few):
    ax = ssc.pl.enrichment(few, ["sae_1", "sae_2", "sae_3"], n_terms=1, show=False)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["sae_1", "sae_2", "sae_3"]
    table = few.uns["sae"]["enrichment"]
    table.loc[table["feature"] == "sae_3", "term"] = ["A", "Q"]
    ax = ssc.pl.enrichment(few, ["sae_1", "sae_2", "sae_3"], n_terms=1, show=False)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["sae_1", "sae_3", "sae_2"]


def test_scale_is_symmetric_only_with_both_signs(few):
    norm = ssc.pl.enrichment(few, show=False).collections[0].norm
    assert norm.vmin == -norm.vmax
    table = few.uns["sae"]["enrichment"]
    few.uns["sae"]["enrichment"] = table[table["score"] > 0]
    ax = ssc.pl.enrichment(few, show=False)
    assert ax.collections[0].norm.vmin == 0
    assert ssc.pl.enrichment(few, vmax=3, show=False).collections[0].norm.vmax == 3


def test_feature_with_negative_scores_only_shows_its_smallest_p(few):
    table = few.uns["sae"]["enrichment"]
    table.loc[table["feature"] == "sae_1", "score"] = [-5.0, -4.0, -8.0]
    ax = ssc.pl.enrichment(few, "sae_1", n_terms=1, show=False)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["C"]


def test_areas_never_vanish_or_overflow():
    areas = _enrichment.dot_areas(np.array([1.0, 0.0, 1e-300, np.nan, 1e-5]), 10)
    assert np.isfinite(areas).all()
    assert (areas > 0).all()
    assert areas[1] == areas[2] == areas.max()
    assert areas[4] == pytest.approx((areas[0] + areas[1]) / 2)


def test_legend_has_the_sizes_that_are_drawn(few):
    ax = ssc.pl.enrichment(few, max_log10=8, show=False)
    handles = ax.get_legend().legend_handles
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert texts == ["1.6", "4", "≥ 8", "padj < 0.05"]
    expected = np.sqrt(_enrichment.dot_areas(10.0 ** -np.array([1.6, 4, 8]), 8))
    np.testing.assert_allclose([h.get_markersize() for h in handles[:3]], expected)


def test_long_names_are_wrapped_and_do_not_touch(described):
    fig = ssc.pl.enrichment(described, n_terms=3, return_fig=True)
    fig.canvas.draw()
    labels = fig.axes[0].get_yticklabels()
    assert any("\n" in t.get_text() for t in labels)
    boxes = sorted((t.get_window_extent() for t in labels), key=lambda b: b.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))


def test_features_that_were_not_tested(described):
    with pytest.raises(ValueError, match="No enrichment for 'sae_63': not tested"):
        ssc.pl.enrichment(described, "sae_63")
    ax = ssc.pl.enrichment(described, ["sae_63", "sae_1"], show=False)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["sae_1", "sae_63"]


def test_options_out_of_range(described):
    with pytest.raises(ValueError, match="n_terms must be a whole number"):
        ssc.pl.enrichment(described, n_terms=0)
    with pytest.raises(ValueError, match="max_log10 must be positive"):
        ssc.pl.enrichment(described, max_log10=0)
