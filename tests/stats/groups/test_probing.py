from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sparsesc.stats.groups._probing import _logistic, _pursue, sparse_probe


def halves(adata, kind):
    Z = adata.obsm["X_sae"].toarray() if kind == "sparse" else np.asarray(adata.obsm["X_pca"])
    members = np.eye(10, dtype=bool)[adata.obs["bulk_labels"].cat.codes][:, [1, 3, 5]]
    train = np.random.default_rng(0).permutation(len(Z)) < len(Z) // 2
    return Z[train].astype(float), members[train], Z[~train].astype(float), members[~train]


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_scores_are_those_of_sklearn_on_features_found_by_plain_regression(pbmc68k_code, kind):
    Z, y, Z_test, y_test = halves(pbmc68k_code, kind)
    found = sparse_probe(sparse.csr_matrix(Z), y, sparse.csr_matrix(Z_test), y_test)
    mean, sd = Z.mean(0), np.where(Z.std(0) > 0, Z.std(0), 1)
    A, A_test = (Z - mean) / sd, (Z_test - mean) / sd
    for c in range(3):
        chosen: list[int] = []
        for _ in range(5):
            design = np.column_stack([np.ones(len(A)), A[:, chosen]])
            rest = y[:, c] - design @ np.linalg.lstsq(design, y[:, c], rcond=None)[0]
            fit = np.abs(A.T @ rest)
            fit[chosen] = -1
            chosen.append(int(fit.argmax()))
        for row, size in enumerate((1, 2, 5)):
            part = chosen[:size]
            model = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(A[:, part], y[:, c])
            expected = roc_auc_score(y_test[:, c], model.decision_function(A_test[:, part]).round(7))
            assert found[row, c] == pytest.approx(expected, abs=1e-6)


def test_weights_are_sklearns_also_when_groups_are_apart():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(200, 3))
    y = np.column_stack([X[:, 0] > 0, X.sum(1) + rng.normal(size=200) > 1]).T
    found = _logistic(np.stack([X, X]), y.astype(float))
    for c in range(2):
        expected = LogisticRegression(C=1.0, tol=1e-12, max_iter=1000).fit(X, y[c]).coef_[0]
        np.testing.assert_allclose(found[c], expected, rtol=1e-5)


def test_a_pair_tells_what_one_cannot():
    rng = np.random.default_rng(3)
    Z = rng.normal(size=(2000, 20))
    Z[:, 1] = Z[:, 0] * 0.9 + Z[:, 1] * 0.3
    y = (Z[:, :1] - Z[:, 1:2]) > 0.2
    half = np.arange(2000) < 1000
    found = sparse_probe(sparse.csr_matrix(Z[half]), y[half], sparse.csr_matrix(Z[~half]), y[~half])[:, 0]
    assert found[0] < 0.8
    assert found[1] > 0.98


def test_noise_scores_one_half_and_few_features_are_enough():
    rng = np.random.default_rng(4)
    Z = sparse.random(1000, 400, density=0.1, format="csr", rng=rng)
    y = rng.random((1000, 30)) < 0.3
    assert sparse_probe(Z[:500], y[:500], Z[500:], y[500:]).mean() == pytest.approx(0.5, abs=0.015)
    found = sparse_probe(Z[:500, :2], y[:500], Z[500:, :2], y[500:])
    np.testing.assert_array_equal(found[1], found[2])  # there are only two


def test_copies_are_not_chosen_twice():
    rng = np.random.default_rng(5)
    z, other = rng.normal(size=(2, 300))
    y = (z + 0.5 * other > 0).astype(float)[:, None]
    Z = sparse.csc_matrix(np.column_stack([z, z, other]))
    chosen = _pursue(Z, y, np.ones(3), np.zeros(3), 2)
    assert set(chosen[0]) in ({0, 2}, {1, 2})
