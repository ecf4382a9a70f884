from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import sparsesc as ssc


@pytest.fixture
def judged():
    """Tables as the function writes them, by hand: three dimensions, the first collapsed."""
    names = ["z_0", "z_1", "z_2"]
    elbo = pd.DataFrame({"donor": ["all", "a"], "n_cells": [9, 9], "reconstruction": [90.0, 80], "kl": [10.0, 5]})
    dimensions = pd.DataFrame(
        {
            "kl": [0.001, 2.0, 3.0],
            "variance": [0.1, 0.3, 0.2],
            "active": [False, True, True],
            "collapsed": [True, False, False],
        },
        index=names,
    )
    dependence = pd.DataFrame(
        {
            "dimension": names * 2,
            "key": ["type"] * 3 + ["donor"] * 3,
            "share": [0.0, 0.8, 0.1, 0.2, np.nan, 0.3],
            "padj": [1.0, 0.01, 0.2, np.nan, np.nan, np.nan],
        }
    )
    tables = {"elbo": elbo, "dimensions": dimensions, "dependence": dependence}
    return AnnData(np.zeros((2, 1)), uns={"latent_diagnostics": tables})


def test_panels_show_the_tables(judged):
    axes = ssc.pl.latent_diagnostics(judged, show=False)
    assert [bar.get_width() for bar in axes["elbo"].patches] == [90, 80, 10, 5]
    assert [bar.get_x() for bar in axes["elbo"].patches] == [0, 0, 90, 80]
    assert [t.get_text() for t in axes["elbo"].get_yticklabels()] == ["all (n=9)", "a (n=9)"]
    assert [t.get_text() for t in axes["dimensions"].get_xticklabels()] == ["2", "1", "0"]
    assert [bar.get_height() for bar in axes["dimensions"].patches] == [3.0, 2.0, 0.001]
    labels = [t.get_text() for t in axes["dimensions"].get_legend().get_texts()]
    assert labels == ["active: 2", "not active: 0", "collapsed: 1"]
    shown = axes["dependence"].images[0].get_array()
    np.testing.assert_allclose(shown.filled(-1), [[0.1, 0.8, 0.0], [0.3, -1, 0.2]])
    np.testing.assert_allclose(axes["dependence"].collections[0].get_offsets(), [[1, 0]])
    assert [t.get_text() for t in axes["dependence"].get_yticklabels()] == ["type", "donor\n(no test)"]


def test_models_without_a_posterior_are_shown_by_variance(judged):
    tables = judged.uns["latent_diagnostics"]
    tables["dimensions"]["kl"] = np.nan
    tables["elbo"]["kl"] = np.nan
    tables["dependence"] = tables["dependence"].iloc[:0]
    axes = ssc.pl.latent_diagnostics(judged, show=False)
    assert set(axes) == {"elbo", "dimensions"}
    assert [t.get_text() for t in axes["dimensions"].get_xticklabels()] == ["1", "2", "0"]
    assert len(axes["elbo"].patches) == 2


def test_missing_tables():
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.latent_diagnostics first"):
        ssc.pl.latent_diagnostics(AnnData(np.zeros((2, 1))))
