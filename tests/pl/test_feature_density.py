from __future__ import annotations

import numpy as np
import pytest

import sparsesc as ssc


def test_every_living_feature_is_in_one_bar(described):
    axes = ssc.pl.feature_density(described, bins=15, show=False)
    assert sum(p.get_height() for p in axes["density"].patches) == 63
    density = described.uns["sae"]["features"]["density"]
    edges = [p.get_x() for p in axes["density"].patches]
    np.testing.assert_allclose(np.diff(np.log10(edges)), np.diff(np.log10(edges))[0])
    assert edges[0] == pytest.approx(density[density > 0].min())


def test_points_are_density_and_mean_activation(described):
    axes = ssc.pl.feature_density(described, show=False)
    table = described.uns["sae"]["features"]
    table = table[~table["dead"].astype(bool)]
    np.testing.assert_array_equal(
        axes["mean_active"].collections[0].get_offsets(), table[["density", "mean_active"]].to_numpy(float)
    )
    assert axes["density"].get_xscale() == "log"
    assert axes["density"].get_shared_x_axes().joined(axes["density"], axes["mean_active"])


def test_title_gives_the_share_of_dead_features(described):
    axes = ssc.pl.feature_density(described, show=False)
    assert axes["density"].get_title(loc="right") == "1 of 64 dead (1.6%)"
    described.uns["sae"]["features"]["density"] = 0.0
    axes = ssc.pl.feature_density(described, show=False)
    assert axes["density"].get_title(loc="right") == "64 of 64 dead (100.0%)"


def test_features_of_one_density(described):
    described.uns["sae"]["features"]["density"] = 0.125
    axes = ssc.pl.feature_density(described, show=False)
    assert sum(p.get_height() for p in axes["density"].patches) == 64


def test_bad_bins(described):
    with pytest.raises(ValueError, match="bins must be a whole number"):
        ssc.pl.feature_density(described, bins=0)
