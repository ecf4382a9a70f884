from __future__ import annotations

import numpy as np
import pytest

import sparsesc as ssc


@pytest.fixture(scope="module")
def reference(_pbmc68k):
    adata = _pbmc68k[:500].copy()
    ssc.tl.fit_sae(adata, use_rep="X_pca", n_features=48, k=4, max_steps=300, progress_bar=False)
    return adata


@pytest.fixture
def query(_pbmc68k):
    return _pbmc68k[500:].copy()


def test_new_cells_get_the_same_features(reference, query, tmp_path):
    ssc.get.sae(reference).save(tmp_path / "model")
    expected = ssc.get.sae(reference).encode(query.obsm["X_pca"])
    for source in (reference, ssc.get.sae(reference), tmp_path / "model", str(tmp_path / "model")):
        adata = ssc.tl.apply_sae(query, source, copy=True)
        assert (adata.obsm["X_sae"] != expected).nnz == 0
        assert adata.uns["sae"]["params"]["use_rep"] == "X_pca"
        assert adata.uns["sae"]["features"].index[0] == "sae_0"
        assert 0 < adata.uns["sae"]["metrics"]["explained_variance"] < 1
    assert "sae" not in query.uns


def test_applied_features_can_be_applied_again(reference, query):
    ssc.tl.apply_sae(query, reference, key_added="ref")
    assert (ssc.get.sae(query, "ref").encode(query.obsm["X_pca"]) != query.obsm["X_ref"]).nnz == 0


def test_a_feature_is_on_by_the_threshold_of_its_fit(reference, query, tmp_path):
    ssc.get.sae(reference).save(tmp_path / "model")
    expected = reference.uns["sae"]["features"]["on_threshold"].to_numpy()
    for source in (reference, tmp_path / "model"):
        adata = ssc.tl.apply_sae(query, source, copy=True)
        table = adata.uns["sae"]["features"]
        np.testing.assert_allclose(table["on_threshold"], expected)
        np.testing.assert_array_equal(table["n_on"], (adata.obsm["X_sae"].toarray() > expected).sum(0))


def test_another_space_is_noticed(reference, query, monkeypatch):
    said = []
    monkeypatch.setattr("sparsesc.tl.fit._apply_sae.warning", said.append)
    ssc.tl.apply_sae(query, reference)
    assert not said
    query.obsm["X_pca"] = np.roll(query.obsm["X_pca"], 7, axis=1) + 100
    ssc.tl.apply_sae(query, reference)
    assert "was this embedding made by the same model?" in said[0]


def test_errors(reference, query):
    with pytest.raises(ValueError, match="fitted on 50 dimensions, but 'X_umap' has 2"):
        ssc.tl.apply_sae(query, reference, use_rep="X_umap")
    with pytest.raises(KeyError, match="No sparse autoencoder under key='other'"):
        ssc.tl.apply_sae(query, reference, key="other")
    with pytest.raises(TypeError, match="a SparseAutoencoder or a folder, found int"):
        ssc.tl.apply_sae(query, 3)
    with pytest.raises(FileNotFoundError, match="does not hold a saved"):
        ssc.tl.apply_sae(query, "nowhere")
    bare = ssc.nn.SparseAutoencoder(**reference.uns["sae"]["weights"])
    with pytest.raises(ValueError, match="use_rep is not known"):
        ssc.tl.apply_sae(query, bare)
    assert "sae" not in query.uns
