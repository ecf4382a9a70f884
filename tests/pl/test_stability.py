from __future__ import annotations

import numpy as np
import pytest

import sparsesc as ssc


@pytest.fixture
def judged(described):
    rng = np.random.default_rng(0)
    table = described.uns["sae"]["features"]
    alive = ~table["dead"].to_numpy(dtype=bool)
    table["stability"] = np.where(alive, rng.beta(6, 2, len(table)), np.nan)
    table["stability_random"] = np.where(alive, rng.beta(6, 12, len(table)), np.nan)
    described.uns["sae"]["stability"] = {"shaped": 0.4}
    described.uns["sae"]["params"]["stability"] = {"n_fits": 5}
    return described


def test_every_living_feature_is_in_one_bar_of_each_kind(judged):
    axes = ssc.pl.stability(judged, bins=20, show=False)
    heights = [bar.get_height() for bar in axes.patches]
    assert len(heights) == 40
    assert sum(heights[:20]) == sum(heights[20:]) == 63
    assert axes.lines[0].get_xdata()[0] == 0.4
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert f"features, mean {judged.uns['sae']['features']['stability'].mean():.2f}" in labels
    assert "5 refits" in axes.get_xlabel()


def test_not_computed_yet(described):
    with pytest.raises(KeyError, match=r"Did not find adata.uns\['sae'\]\['stability'\]. Run ssc.tl.stability first"):
        ssc.pl.stability(described)


def test_bad_bins(judged):
    with pytest.raises(ValueError, match="bins must be a whole number"):
        ssc.pl.stability(judged, bins=0)
