"""Concepts of features: against a plain loop and sklearn, and where there is nothing to be found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.metrics import f1_score

from sparsesc.stats.core._multiple import benjamini_hochberg
from sparsesc.stats.groups._concepts import THRESHOLDS, score_concepts


@pytest.fixture
def halves(pbmc68k_code):
    """Codes and labels of two halves of real cells."""
    codes = pbmc68k_code.obsm["X_sae"]
    labels = pbmc68k_code.obs["bulk_labels"].cat.codes.to_numpy().astype(int)
    first = np.random.default_rng(0).permutation(700) < 350
    return codes[first], labels[first], codes[~first], labels[~first]


@pytest.mark.parametrize("criterion", ["excess", "f1"])
def test_agrees_with_a_loop_over_all_pairs(halves, criterion):
    choose, choose_labels, test, test_labels = halves
    found = score_concepts(*halves, n_groups=10, criterion=criterion)
    for f in range(0, 64, 9):
        x, y = choose[:, [f]].toarray().ravel(), test[:, [f]].toarray().ravel()
        values = {}
        for c in range(10):
            for share in THRESHOLDS:
                called = x > np.float32(share * x.max())
                f1, p = f1_score(choose_labels == c, called), (choose_labels == c).mean()
                null = 2 * called.sum() * p / (called.sum() + (choose_labels == c).sum())
                values[c, share] = f1 if criterion == "f1" else (f1 - null) / (1 - null)
        concept, share = max(values, key=values.get)
        assert (found.concept[f], found.chosen_by[f]) == (concept, pytest.approx(values[concept, share]))
        called, member = y > np.float32(share * x.max()), test_labels == concept
        assert found.f1[f] == pytest.approx(f1_score(member, called))
        assert found.precision[f] == pytest.approx((called & member).sum() / max(called.sum(), 1))
        assert found.recall[f] == pytest.approx((called & member).sum() / member.sum())
        p = stats.hypergeom.sf((called & member).sum() - 1, len(y), member.sum(), called.sum())
        assert np.exp(found.log_p[f]) == pytest.approx(p, rel=1e-6)


def test_null_is_the_mean_over_shuffled_labels(halves):
    choose, choose_labels, test, test_labels = halves
    found = score_concepts(*halves, n_groups=10)
    rng = np.random.default_rng(1)
    draws = [
        score_concepts(choose, choose_labels, test, rng.permutation(test_labels), n_groups=10).f1 for _ in range(300)
    ]
    np.testing.assert_allclose(np.mean(draws, axis=0), found.f1_null, atol=0.02)


def test_silent_features_and_groups_without_cells_have_no_concept():
    X = sparse.csr_matrix(np.array([[0, 1.0], [0, 2.0], [0, 0], [0, 3.0]]))
    found = score_concepts(X, np.array([0, 0, 1, 0]), X, np.array([1, 1, 0, 1]), n_groups=3)
    assert found.concept.tolist() == [-1, 0]
    assert (found.f1[0], found.f1_null[0], found.log_p[0]) == (0, 0, 0)
    nothing = score_concepts(X, np.zeros(4, int), X, np.zeros(4, int), n_groups=1, eligible=np.array([False]))
    assert (nothing.concept == -1).all()


def test_threshold_is_relative_to_the_maximum():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    x = np.where(labels == 1, rng.uniform(6, 10, 400), rng.uniform(0.1, 4, 400))
    found = score_concepts(sparse.csr_matrix(x[::2, None]), labels[::2], sparse.csr_matrix(x[1::2, None]), labels[1::2],
                       n_groups=2)  # fmt: skip
    assert found.concept[0] == 1
    assert found.threshold[0] == pytest.approx(0.5 * x[::2].max())
    assert found.f1[0] == 1


def test_p_values_hold_their_level_and_tiny_ones_do_not_underflow():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 1200)
    X = sparse.random(1200, 20_000, density=0.1, random_state=rng, format="csr", dtype=np.float32)
    found = score_concepts(X[:600], labels[:600], X[600:], labels[600:], n_groups=4)
    p = np.exp(found.log_p)
    for alpha in [0.05, 0.01, 0.001]:
        assert (p <= alpha).mean() <= 1.05 * alpha
    assert (p <= 0.05).mean() > 0.02  # discrete, but not idle
    member = np.arange(40_000) % 2
    exact = score_concepts(*[sparse.csr_matrix(member[:, None] * 1.0), member] * 2, n_groups=2)
    assert exact.f1[0] == 1
    assert exact.log_p[0] == pytest.approx(stats.hypergeom(40_000, 20_000, 20_000).logpmf(20_000), rel=1e-9)


def test_false_discoveries_and_power_with_planted_concepts():
    shares, power = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 5, 800)
        X = np.where(rng.random((800, 100)) < 0.15, rng.gamma(2, size=(800, 100)), 0)
        for f in range(20):
            X[(labels == f % 5) & (rng.random(800) < 0.4), f] += 1
        found = score_concepts(sparse.csr_matrix(X[:400]), labels[:400], sparse.csr_matrix(X[400:]), labels[400:],
                           n_groups=5)  # fmt: skip
        hits = benjamini_hochberg(np.exp(found.log_p)) < 0.05
        shares.append(hits[20:].sum() / max(hits.sum(), 1))
        power.append((hits[:20] & (found.concept[:20] == np.arange(20) % 5)).mean())
    assert np.mean(shares) < 0.07
    assert np.mean(power) > 0.7
