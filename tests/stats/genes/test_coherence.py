from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sparsesc.stats.genes._coherence import coherence, free_of_depth, log_fisher, log_p_together, log_tail
from sparsesc.stats.genes._like_expressed import ExpressionBins

N_CELLS, N_GENES = 500, 300


def standard(values):
    return (values - values.mean(0)) / values.std(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_tail_is_scipys(rng):
    z, skewness = rng.normal(0, 3, 200), rng.normal(0, 1, 200)
    np.testing.assert_allclose(
        log_tail(z, skewness), np.maximum(stats.pearson3.logsf(z, skewness), np.log(1e-300)), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(log_tail(z, np.zeros(200)), stats.norm.logsf(z), rtol=1e-6, atol=1e-9)


def test_combination_is_fishers(rng):
    p = rng.random(9) ** 3
    assert np.exp(log_fisher(np.log(p))) == pytest.approx(stats.combine_pvalues(p, "fisher").pvalue, rel=1e-9)
    assert log_fisher(np.full(9, -60.0)) == pytest.approx(stats.gamma.logsf(540.0, 9), rel=1e-6)
    assert np.isfinite(log_fisher(np.full(9, -690.0)))
    assert log_fisher(np.zeros(9)) == 0


def test_depth_and_samples_are_taken_away(rng):
    depth, sample = rng.normal(size=N_CELLS), rng.integers(0, 4, N_CELLS)
    signal = rng.normal(size=(N_CELLS, 3))
    bent = np.exp(0.3 * depth)[:, None] * [1.0, 3.0, 5.0] + 2 * np.array([0, 1, 5, 2])[sample][:, None]
    free = free_of_depth(signal + bent, depth, sample)
    np.testing.assert_allclose(free.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(free.std(0), 1, rtol=1e-9)
    for power in (depth, depth**2, depth**3, *(sample == np.arange(4)[:, None])):
        assert np.abs(power @ free).max() < 1e-6 * N_CELLS
    assert np.abs(np.corrcoef(free.T) - np.corrcoef(signal.T)).max() < 0.1
    constant = free_of_depth(np.column_stack([np.ones(N_CELLS), depth]), depth)
    np.testing.assert_array_equal(constant, 0)


@pytest.mark.parametrize("kind", ["normal", "rare", "counts"])
def test_level_of_genes_that_are_independent(kind, rng):
    """Sets that no one chose: also of genes that one cell in fifty expresses."""
    make = {
        "normal": lambda: rng.normal(size=(N_CELLS, 10)),
        "rare": lambda: (rng.random((N_CELLS, 10)) < 0.03) * rng.gamma(2, size=(N_CELLS, 10)),
        "counts": lambda: np.log1p(rng.negative_binomial(0.5, 0.3, (N_CELLS, 10))),
    }[kind]
    p = np.exp([log_p_together(standard(make())) for _ in range(3000)])
    assert 0.035 < (p <= 0.05).mean() < 0.06
    assert (p <= 0.001).mean() < 0.003


def test_genes_that_were_chosen_for_varying_together_by_chance(rng):
    """The best sets by principal components of noise, which saw all cells: significant as if no one had chosen them."""
    z = standard(rng.normal(size=(N_CELLS, N_GENES)))
    direction = np.linalg.svd(z, full_matrices=False)[2][:20]
    chosen = [np.argsort(-v)[:10] for v in np.vstack([direction, -direction])]
    bins, pool = ExpressionBins(np.arange(N_GENES)), np.arange(N_GENES)
    unaware = coherence(z, chosen, pool, bins, n_choices=0, rng=rng)
    aware = coherence(z, chosen, pool, bins, n_choices=N_GENES, rng=rng)
    assert (unaware.pval < 0.05).mean() > 0.9
    assert (aware.pval > 0.05).all()
    np.testing.assert_allclose(aware.excess, unaware.excess, atol=0.01)
    assert (aware.excess > 0).mean() > 0.9


def test_genes_that_do_vary_together(rng):
    """A program of ten genes among others, its excess correlation as planted."""
    values = rng.normal(size=(N_CELLS, N_GENES))
    values[:, :10] += rng.normal(size=(N_CELLS, 1))  # correlation 1/2
    z = standard(values)
    sets = [np.arange(10), np.arange(20, 30), np.arange(10, 12), np.array([], dtype=int)]
    found = coherence(z, sets, np.arange(N_GENES), ExpressionBins(np.arange(N_GENES)), n_choices=N_GENES, rng=rng)
    assert found.excess[0] == pytest.approx(0.5, abs=0.06)
    assert found.pval[0] < 0.01
    assert found.pval[1] == 1
    assert np.isnan(found.excess[2:]).all()
    assert np.isnan(found.pval[2:]).all()


def test_genes_that_vary_together_no_more_than_their_like(rng):
    """All highly expressed genes follow one program: a set of these is nothing special, if improbable by chance."""
    values = rng.normal(size=(N_CELLS, N_GENES))
    values[:, 200:] += rng.normal(size=(N_CELLS, 1))
    z = standard(values)
    sets = [rng.choice(np.arange(200, 300), 10, replace=False) for _ in range(20)]
    bins, pool = ExpressionBins(np.arange(N_GENES)), np.arange(N_GENES)
    found = coherence(z, sets, pool, bins, n_choices=N_GENES, rng=np.random.default_rng(1))
    assert max(log_p_together(z[:, np.sort(s)]) for s in sets) < -200
    assert np.abs(found.excess).max() < 0.1
    assert (found.pval <= 0.05).mean() <= 0.1
