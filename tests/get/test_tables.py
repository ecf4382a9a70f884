from __future__ import annotations

import pandas as pd
import pytest

import sparsesc as ssc


@pytest.fixture
def adata(pbmc68k_code):
    ssc.tl.feature_genes(pbmc68k_code, progress_bar=False)
    ssc.tl.feature_enrichment(pbmc68k_code, "immune_markers", progress_bar=False)
    return pbmc68k_code


@pytest.mark.parametrize("name", ["genes", "enrichment"])
def test_rows_of_features(adata, name):
    reader = getattr(ssc.get, name)
    everything = reader(adata)
    pd.testing.assert_frame_equal(everything, adata.uns["sae"][name])
    one = reader(adata, "sae_5")
    assert set(one["feature"]) == {"sae_5"}
    assert one.index.tolist() == list(range(len(one)))
    assert one["pval"].tolist() == everything.loc[everything["feature"] == "sae_5", "pval"].tolist()
    pd.testing.assert_frame_equal(reader(adata, 5), one)
    assert set(reader(adata, ["sae_5", "sae_9"], "sae")["feature"]) == {"sae_5", "sae_9"}


@pytest.mark.parametrize("name", ["genes", "enrichment"])
def test_tables_are_copies(adata, name):
    found = getattr(ssc.get, name)(adata)
    found["pval"] = 0.0
    assert (adata.uns["sae"][name]["pval"] > 0).any()


@pytest.mark.parametrize("name", ["genes", "enrichment"])
def test_what_is_missing_is_told(adata, name):
    reader = getattr(ssc.get, name)
    with pytest.raises(KeyError, match="Did not find feature 'sae_640' of 'sae'"):
        reader(adata, "sae_640")
    with pytest.raises(KeyError, match="No sparse autoencoder under key='other'"):
        reader(adata, key="other")
    del adata.uns["sae"][name]
    with pytest.raises(KeyError, match=rf"Run ssc\.tl\.feature_{name} first"):
        reader(adata)
