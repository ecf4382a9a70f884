"""The autoencoder as it is used after training."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import sparse

from sparsesc.nn import SparseAutoencoder, _encode
from sparsesc.nn._scaling import fit_scaler
from sparsesc.nn._threshold import exact_threshold


def make_sae(*, d=6, F=20, k=None, architecture="batchtopk", threshold=0.4, seed=0):
    rng = np.random.default_rng(seed)
    D = rng.normal(size=(F, d))
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    return SparseAutoencoder(
        D.T + 0.1 * rng.normal(size=(d, F)),
        0.1 * rng.normal(size=F),
        D,
        rng.normal(size=d),
        threshold * rng.random(F),
        k=k,
        architecture=architecture,
        metadata={"use_rep": "X_pca"},
    )


@pytest.fixture(scope="module")
def cells():
    return np.random.default_rng(1).normal(size=(9000, 6)).astype(np.float32)


def test_encode_is_the_formula(cells):
    sae = make_sae()
    codes = sae.encode(cells)
    pre = (cells - sae.b_dec) @ sae.W_enc + sae.b_enc
    np.testing.assert_allclose(codes.toarray(), np.where(pre > sae.threshold, pre, 0), atol=1e-5)
    assert sparse.isspmatrix_csr(codes)
    assert codes.dtype == np.float32
    assert codes.data.min() > 0
    fresh = sparse.csr_matrix((codes.data, codes.indices, codes.indptr), shape=codes.shape)
    assert fresh.has_sorted_indices
    assert fresh.has_canonical_format


@pytest.mark.parametrize("compiled", [True, False])
def test_wide_embeddings_encode_the_same_by_either_product(monkeypatch, compiled):
    monkeypatch.setattr(_encode, "compiled_product", lambda d: compiled)  # whatever this processor would take
    rng = np.random.default_rng(2)
    cells, D = (rng.normal(size=shape).astype(np.float32) for shape in ((500, 90), (30, 90)))
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    weights = {"W_enc": D.T.copy(), "b_enc": rng.normal(size=30), "W_dec": D, "b_dec": rng.normal(size=90)}
    sae = SparseAutoencoder(**weights, threshold=np.full(30, 0.5, np.float32), k=3)
    pre = (cells - sae.b_dec) @ sae.W_enc + sae.b_enc
    np.testing.assert_allclose(sae.encode(cells).toarray(), np.where(pre > sae.threshold, pre, 0), atol=1e-4)


def test_top_k_keeps_k_positive_entries_of_each_cell(cells):
    sae = make_sae(k=3, architecture="topk", threshold=0)
    codes = sae.encode(cells)
    pre = np.maximum((cells - sae.b_dec) @ sae.W_enc + sae.b_enc, 0)
    expected = np.where(pre >= np.sort(pre, axis=1)[:, -3, None], pre, 0)
    np.testing.assert_allclose(codes.toarray(), expected, atol=1e-5)


def test_decode_and_reconstruct(cells):
    sae = make_sae()
    codes = sae.encode(cells)
    np.testing.assert_allclose(sae.decode(codes), codes.toarray() @ sae.W_dec + sae.b_dec, atol=1e-5)
    np.testing.assert_allclose(sae.decode(codes.toarray()), sae.decode(codes), atol=1e-5)
    np.testing.assert_allclose(sae.decode(codes[0].toarray()[0]), sae.decode(codes[0])[0], atol=1e-5)
    np.testing.assert_array_equal(sae.reconstruct(cells), sae.decode(codes))


def test_no_cells():
    assert make_sae().encode(np.empty((0, 6))).shape == (0, 20)


@pytest.mark.parametrize("architecture", ["batchtopk", "topk"])
def test_save_and_load(tmp_path, cells, architecture):
    sae = make_sae(k=3, architecture=architecture)
    sae.save(tmp_path / "model")
    again = SparseAutoencoder.load(tmp_path / "model")
    assert (sae.encode(cells) != again.encode(cells)).nnz == 0
    assert again.metadata == {"use_rep": "X_pca"}
    assert repr(again) == repr(sae)
    assert {p.suffix for p in (tmp_path / "model").iterdir()} == {".safetensors", ".json"}


def test_load_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not hold a saved sparse autoencoder"):
        SparseAutoencoder.load(tmp_path)
    make_sae().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"format": 99}))
    with pytest.raises(ValueError, match="Update sparsesc"):
        SparseAutoencoder.load(tmp_path)


def test_metadata_that_cannot_be_saved_leaves_no_file(tmp_path):
    sae = make_sae()
    sae.metadata["model"] = object()
    with pytest.raises(TypeError, match="plain values"):
        sae.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W_enc": np.zeros((5, 20))}, r"W_enc must have shape \(6, 20\)"),
        ({"threshold": np.full(20, -1.0)}, "Thresholds must not be negative"),
        ({"b_dec": np.full(6, np.nan)}, "b_dec holds NaN"),
        ({"k": 21, "architecture": "topk"}, "k must lie between 1"),
        ({"architecture": "topk"}, "needs k"),
        ({"W_dec": np.zeros(3)}, "two-dimensional"),
    ],
)
def test_constructor_errors(change, message):
    good = make_sae()
    with pytest.raises(ValueError, match=message):
        SparseAutoencoder(**(good.weights | change))


def test_wrong_cells(cells):
    sae = make_sae()
    with pytest.raises(ValueError, match="Expected cells x 6 dimensions, got shape"):
        sae.encode(cells[:, :4])
    with pytest.raises(ValueError, match="NaN or infinite values in 1 cells"):
        sae.encode(np.vstack([cells[:3], np.full((1, 6), np.inf)]))
    with pytest.raises(ValueError, match="20 features"):
        sae.decode(np.zeros((2, 7)))


@pytest.mark.parametrize("whiten", [False, True])
def test_folding_is_exact(whiten):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(500, 6)) * [1, 2, 3, 4, 5, 60] + 100).astype(np.float64)
    scaler = fit_scaler(X, whiten=whiten)
    U = scaler.transform(X)
    np.testing.assert_allclose(np.square(U).mean(), 1, rtol=1e-3)
    E, D = rng.normal(size=(20, 6)), rng.normal(size=(20, 6))
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    inner = {"E": E, "b_enc": rng.normal(size=20), "D": D, "b_dec": rng.normal(size=6), "threshold": rng.random(20)}
    outer = SparseAutoencoder(**scaler.fold(**inner))
    pre = (U - inner["b_dec"]) @ E.T + inner["b_enc"]
    codes = np.where(pre > inner["threshold"], pre, 0)
    back = scaler.coloring if whiten else np.eye(6) * scaler.scale
    expected = (codes @ D + inner["b_dec"]) @ back + scaler.mean
    np.testing.assert_allclose(outer.reconstruct(X), expected, rtol=2e-4, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(outer.W_dec, axis=1), 1, atol=1e-5)
    agree = (outer.encode(X).toarray() > 0) == (codes > 0)
    assert agree.mean() > 0.9999


def test_constant_embedding_is_refused():
    with pytest.raises(ValueError, match="constant"):
        fit_scaler(np.full((50, 4), 7.5))


@pytest.mark.parametrize("k", [1, 4, 9])
def test_threshold_gives_exactly_k(cells, k):
    sae = make_sae(threshold=0)
    inner = {"E": sae.W_enc.T, "b_enc": sae.b_enc, "D": sae.W_dec, "b_dec": sae.b_dec}
    limit = exact_threshold(inner, cells, k)
    codes = SparseAutoencoder(**(sae.weights | {"threshold": np.full(20, limit)})).encode(cells)
    assert codes.nnz == k * len(cells)


def test_threshold_is_zero_when_too_little_is_positive(cells):
    sae = make_sae(threshold=0)
    inner = {"E": sae.W_enc.T, "b_enc": sae.b_enc - 50, "D": sae.W_dec, "b_dec": sae.b_dec}
    assert exact_threshold(inner, cells, 4) == 0
