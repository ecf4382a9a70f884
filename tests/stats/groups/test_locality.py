from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from sparsesc.stats import benjamini_hochberg, group_contrasts, mann_whitney
from sparsesc.stats.groups._locality import GroupContrasts, breadth, classify

SIZES = [10, 13, 30, 60, 90, 120, 150, 227]


def sparse_codes(rng, n_cells, n_features, *, low=-2.3, high=-0.3):
    """Features of all densities; activations with a heavy tail."""
    density = 10 ** rng.uniform(low, high, n_features)
    return np.where(rng.random((n_cells, n_features)) < density, rng.lognormal(size=(n_cells, n_features)), 0.0)


def published_rule(dense, groups, n_groups):
    """``mean_in - mean_out > 1.96 (se_in + se_out)``."""
    out = []
    for g in range(n_groups):
        inside, outside = dense[groups == g], dense[groups != g]
        se = [part.std(0, ddof=1) / np.sqrt(len(part)) for part in (inside, outside)]
        out.append(inside.mean(0) - outside.mean(0) > 1.96 * (se[0] + se[1]))
    return np.array(out).T


def test_agrees_with_numpy_and_scipy(pbmc68k_code):
    codes, groups = pbmc68k_code.obsm["X_sae"], pbmc68k_code.obs["bulk_labels"].cat.codes.to_numpy()
    found = group_contrasts(codes, groups)
    dense = codes.toarray().astype(float)
    inside = np.array([dense[groups == g].mean(0) for g in range(10)]).T
    outside = np.array([dense[groups != g].mean(0) for g in range(10)]).T
    np.testing.assert_allclose(found.mean_in, inside, atol=1e-12)
    np.testing.assert_allclose(found.mean_out, outside, atol=1e-12)
    for feature, group in [(0, 0), (3, 2), (17, 5), (40, 9)]:
        x, y = dense[groups == group, feature], dense[groups != group, feature]
        expected = stats.mannwhitneyu(x, y, method="asymptotic", use_continuity=False)
        z = stats.norm.isf(expected.pvalue / 2) * np.sign(expected.statistic - len(x) * len(y) / 2)
        assert found.statistic[feature, group] == pytest.approx(z, rel=1e-6)
    np.testing.assert_array_equal(found.log_p, mann_whitney(codes, groups)[1])
    se = np.sqrt(
        [
            [(part.var(ddof=1) / len(part) / part.mean() ** 2) if part.any() else np.inf for part in (x[m], x[~m])]
            for x in dense.T[:5]
            for m in [groups == 3]
        ]
    )
    np.testing.assert_allclose(found.se_log_ratio[:5, 3], np.hypot(*se.T), rtol=1e-9)


def test_level_among_shuffled_cells():
    p, published, families = [], [], 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        dense = sparse_codes(rng, 700, 500)
        groups = rng.permutation(np.repeat(np.arange(8), SIZES))
        p.append(np.exp(group_contrasts(sparse.csr_matrix(dense), groups).log_p))
        published.append(published_rule(dense, groups, 8))
        families += (benjamini_hochberg(p[-1]) < 0.05).any()
    pooled = np.concatenate(p)
    assert pooled.size == 24_000
    assert 0.03 < (pooled < 0.05).mean() < 0.06
    assert (pooled < 0.01).mean() < 0.012
    assert (pooled < 1e-3).mean() < 1.5e-3
    assert families == 0
    # the published rule is one-sided: nominally 2.5 %
    assert np.mean(published) < 0.005


def test_finds_more_than_the_published_rule_at_a_known_rate_of_false_discoveries():
    calls, rules, false, n_true = 0, 0, [], 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        groups = rng.permutation(np.repeat(np.arange(8), SIZES))
        dense = sparse_codes(rng, 700, 800, low=-1.6)
        truth = rng.integers(8, size=400)  # half of the features are stronger in one group
        extra = np.where(rng.random((700, 400)) < 0.2, rng.lognormal(size=(700, 400)), 0.0)
        dense[:, :400] += np.where(groups[:, None] == truth, extra, 0.0)
        found = group_contrasts(sparse.csr_matrix(dense), groups)
        called = found.raised(benjamini_hochberg(np.exp(found.log_p)), alpha=0.05, fold=1.0)
        real = np.zeros(called.shape, bool)
        real[np.arange(400), truth] = True
        calls, rules, n_true = (
            calls + called[real].sum(),
            rules + published_rule(dense, groups, 8)[real].sum(),
            n_true + 400,
        )
        false.append(called[400:].sum() / called.sum())  # features that are the same everywhere
    assert np.mean(false) < 0.05
    assert calls > 1.3 * rules
    assert calls > 0.5 * n_true


def test_words():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(5), 200)
    active = np.full((5, 7), 0.02)  # groups x features
    active[2, 0] = 0.6
    active[[1, 3], 1] = 0.5
    active[:, 2] = 0.6
    active[:, 3] = 0.01
    active[:, 4] = 0.5
    active[4, 4] = 0.0
    active[:, 5] = 0.0
    active[0, 6] = 0.9
    active[1, 6] = 0.0
    dense = np.where(rng.random((1000, 7)) < active[groups], rng.uniform(0.5, 1.5, (1000, 7)), 0.0)
    found = group_contrasts(sparse.csr_matrix(dense), groups)
    padj = benjamini_hochberg(np.exp(found.log_p))
    words = classify(found, padj, alpha=0.05, fold=2.0, min_cells=10)
    assert words.tolist() == ["local", "regional", "global", "unclear", "regional", "", "local"]
    assert found.raised(padj, alpha=0.05, fold=2.0)[0].tolist() == [False, False, True, False, False]
    # more is asked of a larger fold, and groups that are too small are not asked
    assert classify(found, padj, alpha=0.05, fold=1.05, min_cells=10)[2] != "global"
    assert classify(found, padj, alpha=0.05, fold=2.0, min_cells=201)[3] == "global"


def test_global_is_rarely_said_of_features_at_the_limit():
    """In one group the mean is just twice that elsewhere: to call it the same is an error, at level alpha."""
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1], [100, 400])
    share = np.where(groups == 0, 0.6, 0.3)
    dense = np.where(rng.random((500, 4000)) < share[:, None], rng.uniform(0.5, 1.5, (500, 4000)), 0.0)
    found = group_contrasts(sparse.csr_matrix(dense), groups)
    words = classify(found, np.ones_like(found.log_p), alpha=0.05, fold=2.0, min_cells=10)
    assert (words == "global").mean() < 0.065
    assert (words == "global").mean() > 0.01


def test_means_of_zero_and_constants():
    dense = np.zeros((40, 3))
    dense[:10, 0] = 1.0
    dense[:, 1] = 2.0
    groups = np.repeat([0, 1], [10, 30])
    found = group_contrasts(sparse.csr_matrix(dense), groups, 3)
    assert found.log_ratio[0].tolist()[:2] == [np.inf, -np.inf]
    assert (found.log_p[1:] == 0).all()
    assert (found.log_p[:, 2] == 0).all()  # an empty group
    assert found.log_p[0, 0] < np.log(1e-6)
    low, high = found.fold_limits(0.05)
    assert (low[0, :2].tolist(), high[0, :2].tolist()) == ([0.0, 0.0], [np.inf, np.inf])
    assert isinstance(found, GroupContrasts)


def test_breadth_is_the_exponential_of_the_entropy():
    mean = np.random.default_rng(0).exponential(size=(20, 6))
    np.testing.assert_allclose(breadth(mean), np.exp(stats.entropy(mean, axis=1)))
    assert breadth(np.array([[1.0, 0, 0], [2, 2, 2], [0, 0, 0]])) == pytest.approx([1, 3, 0])
