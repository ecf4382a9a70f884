from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import sparsesc as ssc


def test_scores_of_all_genes(pbmc68k_code):
    adata = pbmc68k_code
    ssc.tl.feature_genes(adata, n_top=None, direction="both", progress_bar=False)
    scores = ssc.get.gene_scores(adata)
    assert list(scores.index) == list(adata.uns["sae"]["features"].index)
    assert list(scores.columns) == list(adata.var_names)
    wide = ssc.get.genes(adata).pivot(index="feature", columns="gene", values="score")
    np.testing.assert_allclose(scores.loc[wide.index, wide.columns], wide, rtol=1e-5, atol=1e-6)
    some = ssc.get.gene_scores(adata, ["sae_3", 1])
    pd.testing.assert_frame_equal(some, scores.loc[["sae_3", "sae_1"]])
    scores.iloc[:] = 0
    assert (adata.varm["sae_genes"] != 0).any()


def test_they_go_to_decoupler(pbmc68k_code):
    import decoupler

    adata = pbmc68k_code
    ssc.tl.feature_genes(adata, progress_bar=False)
    net = pd.DataFrame({"source": "set", "target": adata.var_names[:20], "weight": 1.0})
    scores = ssc.get.gene_scores(adata)
    found, _ = decoupler.mt.ulm(scores, net)
    member = scores.columns.isin(net["target"])
    r = stats.pearsonr(scores.loc["sae_5"], member).statistic
    assert found.loc["sae_5", "set"] == pytest.approx(r * np.sqrt((len(member) - 2) / (1 - r**2)), rel=1e-4)


def test_refusals_say_what_to_run(pbmc68k_code):
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.feature_genes\(adata, key='sae'\) first"):
        ssc.get.gene_scores(pbmc68k_code)
    ssc.tl.feature_genes(pbmc68k_code, store=False, progress_bar=False)
    with pytest.raises(KeyError, match=r"They were not stored .*store=True"):
        ssc.get.gene_scores(pbmc68k_code)
    ssc.tl.feature_genes(pbmc68k_code, progress_bar=False)
    with pytest.raises(KeyError, match="Did not find feature 'sae_999'"):
        ssc.get.gene_scores(pbmc68k_code, "sae_999")
