from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import sparse, stats

from sparsesc.stats import auroc, benjamini_hochberg, mann_whitney, pearson_one_hot, rank_columns
from sparsesc.stats.groups._association import group_association


@pytest.fixture
def cells(pbmc68k_code):
    """A code of 700 real cells, and their ten labels."""
    return pbmc68k_code.obsm["X_sae"], pbmc68k_code.obs["bulk_labels"].cat.codes.to_numpy()


def shuffle_columns(codes: sparse.csr_matrix, rng: np.random.Generator) -> sparse.csc_matrix:
    """Cells of every feature shuffled on their own, so that features are independent."""
    csc = codes.tocsc(copy=True)
    for start, stop in zip(csc.indptr[:-1], csc.indptr[1:], strict=True):
        csc.indices[start:stop] = rng.choice(csc.shape[0], stop - start, replace=False)
    csc.sort_indices()
    return csc


# agreement with others, on real cells


def test_auroc_is_sklearns(cells):
    from sklearn.metrics import roc_auc_score

    codes, labels = cells
    dense = codes.toarray()
    expected = [[roc_auc_score(labels == g, x) for g in range(10)] for x in dense.T]
    np.testing.assert_allclose(auroc(codes, labels), expected, atol=1e-12)


def test_asymptotic_p_is_scipys(cells):
    codes, labels = cells
    dense = codes.toarray().astype(float)  # scipy keeps to the precision it is given
    u, log_p = mann_whitney(codes, labels, method="asymptotic")
    for g in range(10):
        found = stats.mannwhitneyu(dense[labels == g], dense[labels != g], method="asymptotic", axis=0)
        np.testing.assert_allclose(u[:, g], found.statistic)
        np.testing.assert_allclose(np.exp(log_p[:, g]), found.pvalue, rtol=1e-6)


def test_pearson_is_numpys(cells):
    codes, labels = cells
    dense = codes.toarray().astype(float)
    r = pearson_one_hot(codes, labels)
    for g in (0, 4, 9):
        expected = [np.corrcoef(x, labels == g)[0, 1] for x in dense.T]
        np.testing.assert_allclose(r[:, g], expected, atol=1e-12)


def test_permutation_p_is_what_shuffling_gives(cells):
    """Ten thousand shuffles of the labels, for pairs rare and frequent."""
    codes, labels = cells
    rng = np.random.default_rng(0)
    ranks = stats.rankdata(codes.toarray(), axis=0)
    # labels that are mostly shuffled: associations that are neither none nor certain
    mixed = np.where(rng.random(700) < 0.8, rng.permutation(labels), labels)
    sizes = np.bincount(mixed)
    _, log_p = mann_whitney(codes, mixed)
    draws = np.argsort(rng.random((10_000, 700)), axis=1)
    for f in (1, 20, 45, 60):
        for g in (0, 4, 7):
            shuffled = np.abs(ranks[draws[:, : sizes[g]], f].sum(axis=1) - sizes[g] * 350.5)
            observed = np.abs(ranks[mixed == g, f].sum() - sizes[g] * 350.5)
            # a label without active cells is one outcome of many shuffles: more extreme ones, and as extreme ones
            low, high = (shuffled > observed + 1e-9).mean(), (shuffled >= observed - 1e-9).mean()
            assert 0.8 * low - 0.002 <= np.exp(log_p[f, g]) <= 1.25 * high + 0.002


# the distribution under shuffling, without chance


def test_moments_under_shuffling_are_exact():
    x = np.array([0, 0, 0, 0, 0, 1.5, 1.5, 2, 7.0])
    n, n1 = len(x), 3
    ranked = rank_columns(sparse.csr_matrix(x[:, None]))
    ranks = stats.rankdata(x)
    sums = np.array([ranks[list(chosen)].sum() for chosen in combinations(range(n), n1)])
    assert sums.var() == pytest.approx(ranked.variance[0] * n1 * (n - n1) / (n - 1))
    share = n1 / n
    skew_of_group = (1 - 2 * share) / np.sqrt(share * (1 - share))
    assert stats.skew(sums) == pytest.approx(ranked.skewness[0] * skew_of_group * np.sqrt(n - 1) / (n - 2))


@pytest.mark.parametrize("active", [1, 2, 5])
def test_p_is_never_smaller_than_chance_allows(active):
    """All active cells in a label of as many cells: that has probability 1 / choose(n, active)."""
    n = 200
    x = np.zeros((n, 1))
    x[:active] = 1 + np.arange(active)[:, None]
    labels = (np.arange(n) < active).astype(int)
    _, log_p = mann_whitney(sparse.csr_matrix(x), labels)
    exact = 1 / stats.hypergeom.pmf(0, n, active, 0) * stats.hypergeom.pmf(active, n, active, active)
    assert (np.exp(log_p) >= exact * (1 - 1e-9)).all()
    assert (np.exp(log_p) <= max(50 * exact, 1e-4 if active > 1 else 0.02)).all()
    _, usual = mann_whitney(sparse.csr_matrix(x), labels, method="asymptotic")
    assert (usual < log_p - 10).all()  # what is prevented here


def test_tiny_p_values_do_not_underflow():
    n = 40_000
    member = np.arange(n) < n // 2
    x = np.where(member, 2.0 + np.arange(n) / n, 1.0 + np.arange(n) / n)[:, None]
    for method in ("permutation", "asymptotic"):
        _, log_p = mann_whitney(sparse.csr_matrix(x), member.astype(int), method=method)
        assert np.isfinite(log_p).all()
        assert (log_p < -5000).all()
        assert (np.exp(log_p) == 0).all()


# calibration


def share_below(p: np.ndarray, levels: list[float]) -> np.ndarray:
    return np.array([(p < level).mean() for level in levels])


@pytest.mark.parametrize("method", ["auto", "permutation", "asymptotic"])
def test_uniform_where_many_cells_are_active(cells, method):
    """32,000 tests of real, often active features in large labels, cells of every feature shuffled on their own."""
    codes, labels = cells
    frequent = np.flatnonzero(np.diff(codes.tocsc().indptr) > 100)[:16]
    large = np.where(np.bincount(labels) >= 90, np.arange(10), -1)[labels]  # the smaller labels are made one
    large = np.unique(large, return_inverse=True)[1]
    assert len(np.unique(large)) == 4
    p = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        for _ in range(100):
            p.append(np.exp(mann_whitney(shuffle_columns(codes[:, frequent], rng), large, method=method)[1]))
    p = np.concatenate(p)
    assert p.size >= 20_000
    # p-values of one feature for four labels depend on one another: a test for each label
    for column in p.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    assert stats.kstest(p.ravel(), "uniform").statistic < 0.015


def test_rare_features_and_small_labels_hold_their_level(cells):
    """All features and labels, down to eight cells; a p-value of shuffled cells is never too small too often."""
    codes, labels = cells
    rare = codes.copy()
    rare.data[np.random.default_rng(0).random(rare.nnz) < 0.8] = 0  # 2 to 60 active cells
    p, usual = [], []
    for seed in range(60):
        shuffled = rank_columns(shuffle_columns(rare, np.random.default_rng(seed)))
        p.append(np.exp(mann_whitney(shuffled, labels)[1]).ravel())
        usual.append(np.exp(mann_whitney(shuffled, labels, method="asymptotic")[1]).ravel())
    p, usual = np.concatenate(p), np.concatenate(usual)
    levels = [0.05, 0.01, 1e-3, 1e-4]
    assert p.size >= 20_000
    error = 3 * np.sqrt(np.array(levels) / p.size)
    assert (share_below(p, levels) <= 1.1 * np.array(levels) + error).all()
    assert share_below(usual, [1e-4])[0] > 5e-4  # why the usual approximation is not the default


def test_auto_is_the_usual_test_under_the_rule_of_five(cells):
    codes, labels = cells
    ranked = rank_columns(codes)
    chosen, usual, shuffled = (mann_whitney(ranked, labels, method=m)[1] for m in ("auto", "asymptotic", "permutation"))
    active, members = np.diff(codes.tocsc().indptr), np.bincount(labels)
    enough = np.outer(active, np.minimum(members, 700 - members) / 700) >= 5
    assert 0.1 < enough.mean() < 0.9
    np.testing.assert_array_equal(chosen[enough], usual[enough])
    np.testing.assert_array_equal(chosen[~enough], shuffled[~enough])


@pytest.mark.parametrize("method", ["auto", "permutation"])
def test_false_discovery_rate_without_signal(cells, method):
    """Shuffled labels leave features as dependent as they are; the chance of any discovery is the rate."""
    codes, labels = cells
    rare = codes.copy()
    rare.data[np.random.default_rng(0).random(rare.nnz) < 0.5] = 0
    ranked = rank_columns(rare)
    rng = np.random.default_rng(1)
    found = [
        (benjamini_hochberg(np.exp(mann_whitney(ranked, rng.permutation(labels), method=method)[1])) < 0.05).any()
        for _ in range(200)
    ]
    assert sum(found) <= 20  # 10 are expected; 20 or fewer have probability .998


def test_false_discovery_rate_with_signal():
    shares, power = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        groups = rng.integers(0, 5, 400)
        X = np.where(rng.random((400, 100)) < 0.15, rng.gamma(2, size=(400, 100)), 0)
        for f in range(20):
            X[groups == f % 5, f] += np.where(rng.random((groups == f % 5).sum()) < 0.4, 1.0, 0)
        found = benjamini_hochberg(np.exp(mann_whitney(sparse.csr_matrix(X), groups)[1])) < 0.05
        shares.append(found[20:].sum() / max(found.sum(), 1))
        power.append(found[:20].any(axis=1).mean())
    assert np.mean(shares) < 0.06
    assert np.mean(power) > 0.9


# properties


def test_auroc_does_not_mind_monotone_transforms_and_turns_with_the_label(cells):
    codes, labels = cells
    stretched = codes.copy()
    stretched.data = np.expm1(stretched.data.astype(float)) ** 3
    np.testing.assert_allclose(auroc(stretched, labels), auroc(codes, labels), atol=1e-12)
    member = (labels == 2).astype(int)
    both = auroc(codes, member)
    np.testing.assert_allclose(both[:, 0], 1 - both[:, 1], atol=1e-12)
    u, log_p = mann_whitney(codes, member)
    np.testing.assert_allclose(log_p[:, 0], log_p[:, 1], rtol=1e-9)
    np.testing.assert_allclose(u.sum(axis=1), (labels == 2).sum() * (labels != 2).sum())


def test_order_of_cells_does_not_matter(cells):
    codes, labels = cells
    order = np.random.default_rng(0).permutation(700)
    first, second = group_association(codes, labels), group_association(codes[order], labels[order])
    for name in ("mean_in", "mean_out", "pearson_r", "auroc", "f1", "threshold"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), atol=1e-12)


def test_silent_and_constant_features_and_empty_groups():
    X = np.zeros((30, 3))
    X[:, 1] = 0.1
    X[:5, 2] = 1.0
    groups = np.arange(30) % 2
    found = group_association(sparse.csr_matrix(X, dtype=np.float32), groups, 3)
    assert (found.pearson_r[:2] == 0).all()
    assert (found.auroc[:2, :2] == 0.5).all()
    assert np.isnan(found.auroc[:, 2]).all()
    assert (found.pearson_r[:, 2] == 0).all()
    for method in ("permutation", "asymptotic"):
        _, log_p = mann_whitney(sparse.csr_matrix(X), groups, 3, method=method)
        assert (log_p[:2] == 0).all()
        assert (log_p[:, 2] == 0).all()
    everyone = group_association(sparse.csr_matrix(X), np.zeros(30, int))
    assert np.isnan(everyone.auroc).all()
    assert np.isnan(everyone.mean_out).all()


def test_ranked_codes_can_be_shared(cells):
    codes, labels = cells
    ranked = rank_columns(codes)
    for function in (auroc, pearson_one_hot):
        np.testing.assert_array_equal(function(ranked, labels), function(codes, labels))
    np.testing.assert_array_equal(mann_whitney(ranked, labels)[1], mann_whitney(codes, labels)[1])


@pytest.mark.parametrize(("active", "members"), [(10, 8), (30, 30), (80, 8), (10, 95), (10, 240)])
def test_steps_of_p_keep_to_their_level(active, members):
    """Few active cells, few members: p moves in steps, and none is too low for how often it comes."""
    rng = np.random.default_rng(0)
    rows = np.argsort(rng.random((10_000, 700)), axis=1)[:, :active]
    entries = np.tile(np.arange(1, active + 1.0), len(rows))
    codes = sparse.csc_matrix((entries, rows.ravel(), np.arange(0, rows.size + 1, active)), shape=(700, len(rows)))
    p = np.exp(mann_whitney(codes, (np.arange(700) < members).astype(int))[1][:, 0])
    for level in (0.05, 0.02, 0.01):
        assert (p < level).mean() <= 1.1 * level + 3 * np.sqrt(level / len(p))
