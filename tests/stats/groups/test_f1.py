from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import f1_score

from sparsesc.stats import best_f1, f1_at


def brute_force(x: np.ndarray, member: np.ndarray) -> float:
    called = x[:, None] > np.unique(np.r_[0, x])
    found = (called & member[:, None]).sum(axis=0)
    return (2 * found / (called.sum(axis=0) + member.sum())).max()


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = np.where(rng.random((120, 12)) < 0.3, rng.random((120, 12)), 0).astype(np.float32)
    X[:, 6:] = np.round(X[:, 6:], 1)  # ties
    X[:, 3] = 0
    groups = rng.integers(0, 4, 120)
    X[groups == 2, 0] += 0.5
    return X, groups


def test_is_the_best_of_all_thresholds(data):
    X, groups = data
    f1, threshold = best_f1(sparse.csr_matrix(X), groups, 5)
    for f in range(X.shape[1]):
        for g in range(4):
            assert f1[f, g] == pytest.approx(brute_force(X[:, f], groups == g), abs=1e-12)
            called = X[:, f] > threshold[f, g]
            assert f1[f, g] == pytest.approx(f1_score(groups == g, called, zero_division=0), abs=1e-12)
    assert (f1[3] == 0).all()
    assert (f1[:, 4] == 0).all()
    assert (threshold >= 0).all()


def test_brute_force_on_real_cells(pbmc68k_code):
    codes = pbmc68k_code.obsm["X_sae"]
    labels = pbmc68k_code.obs["bulk_labels"].cat.codes.to_numpy()
    f1, _ = best_f1(codes, labels)
    for f, g in [(0, 1), (5, 3), (17, 9), (40, 0), (63, 6)]:
        x = codes[:, [f]].toarray().ravel()
        assert f1[f, g] == pytest.approx(brute_force(x, labels == g), abs=1e-6)


def test_given_thresholds(data):
    X, groups = data
    pairs = [(0, 2, 0.3), (5, 1, 0.0), (8, 0, 0.5), (3, 1, 0.0), (0, 1, 99.0)]
    features, wanted, thresholds = (np.array(v) for v in zip(*pairs, strict=True))
    found = f1_at(sparse.csr_matrix(X), groups, features=features, wanted=wanted, thresholds=thresholds)
    expected = [f1_score(groups == g, X[:, f] > t, zero_division=0) for f, g, t in pairs]
    np.testing.assert_allclose(found, expected)


def test_negative_values_are_never_called():
    X = sparse.csr_matrix(np.array([[-1.0], [-2.0], [0.0], [1.0]]))
    f1, threshold = best_f1(X, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(f1, [[0, 2 / 3]])
    np.testing.assert_allclose(threshold, [[0, 0]])
    with pytest.raises(ValueError, match="must not be negative"):
        f1_at(X, np.zeros(4, int), features=np.array([0]), wanted=np.array([0]), thresholds=np.array([-1.0]))
