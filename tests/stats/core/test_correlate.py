from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from sparsesc.stats import correlate


@pytest.fixture
def cells(pbmc68k_code):
    obs = pbmc68k_code.obs
    return pbmc68k_code.obsm["X_sae"], obs[["n_counts", "percent_mito", "n_genes"]].to_numpy(dtype=float)


@pytest.mark.parametrize(("kind", "other"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
def test_agrees_with_scipy(cells, kind, other):
    codes, values = cells
    r, log_p = correlate(codes, values, kind=kind, method="asymptotic")
    dense = codes.toarray().astype(float)
    for f in range(0, 64, 7):
        for j in range(3):
            expected = other(dense[:, f], values[:, j])
            assert r[f, j] == pytest.approx(expected.statistic, abs=1e-9)
            assert np.exp(log_p[f, j]) == pytest.approx(expected.pvalue, rel=1e-6)


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_permutation_p_is_what_shuffling_gives(cells, kind):
    codes, values = cells
    rng = np.random.default_rng(0)
    noisy = values[:, 1] + rng.gamma(0.5, size=700) * values[:, 1].std() * 3
    _, log_p = correlate(codes, noisy, kind=kind)
    for f in (0, 12, 50):
        x = codes[:, [f]].toarray().ravel().astype(float)
        y = noisy
        if kind == "spearman":
            x, y = stats.rankdata(x), stats.rankdata(y)
        x = x - x.mean()
        shuffled = np.array([np.abs(x @ rng.permutation(y - y.mean())) for _ in range(5000)])
        share = (shuffled >= np.abs(x @ (y - y.mean()))).mean()
        assert np.exp(log_p[f, 0]) == pytest.approx(share, rel=0.25, abs=0.012)


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_uniform_without_signal(cells, kind):
    """Every feature gets numbers of its own: 24,960 independent tests, three seeds."""
    codes, _ = cells
    codes = codes[:, np.flatnonzero(np.diff(codes.tocsc().indptr) > 60)]
    p = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        for _ in range(7000 // codes.shape[1]):
            order = np.argsort(rng.random(codes.shape), axis=0)
            shuffled = sparse.csr_matrix(np.take_along_axis(codes.toarray(), order, axis=0))
            p.append(np.exp(correlate(shuffled, rng.normal(size=700), kind=kind)[1]).ravel())
    p = np.concatenate(p)
    assert p.size >= 20_000
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_heavy_tails_hold_their_level():
    """Six active cells of 300 and numbers with a long tail: t is wrong by orders of magnitude, shuffling is not."""
    p, usual = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X = sparse.random(300, 100, density=0.02, random_state=rng, format="csr")
        values = rng.lognormal(sigma=2, size=(300, 10))
        p.append(np.exp(correlate(X, values)[1]).ravel())
        usual.append(np.exp(correlate(X, values, method="asymptotic")[1]).ravel())
    p, usual = np.concatenate(p), np.concatenate(usual)
    for level in (0.01, 1e-3, 1e-4):
        assert (p < level).mean() <= 1.5 * level + 4 * np.sqrt(level / p.size)
    assert (usual < 1e-4).mean() > 1e-3


def test_constants_have_no_correlation():
    X = sparse.csr_matrix(np.c_[np.zeros(20), np.full(20, 0.1), np.arange(20)])
    values = np.c_[np.full(20, 0.1), np.arange(20)]
    for kind in ("pearson", "spearman"):
        r, log_p = correlate(X, values, kind=kind)
        assert (r[:2] == 0).all()
        assert (r[:, 0] == 0).all()
        assert r[2, 1] == pytest.approx(1)
        assert (log_p[:2] == 0).all()
        assert np.isfinite(log_p).all()


@pytest.mark.parametrize("values", [np.zeros(3), np.full(20, np.nan), np.zeros((20, 1, 1))])
def test_values_must_fit(values):
    with pytest.raises(ValueError, match="finite numbers for each of 20 cells"):
        correlate(sparse.csr_matrix(np.ones((20, 1))), values)
