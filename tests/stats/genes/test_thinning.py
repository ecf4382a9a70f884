from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from sparsesc.stats import overdispersion, thin_counts

N = 40_000


def draws(mu, excess, seed=0, n=N):
    """Negative binomial counts (Poisson where there is no excess), cells x genes."""
    rng = np.random.default_rng(seed)
    mu, excess = np.asarray(mu, float), np.asarray(excess, float)
    safe = np.where(excess > 0, excess, 1.0)
    rate = np.where(excess > 0, rng.gamma(1 / safe, mu * safe, size=(n, len(mu))), mu)
    return sparse.csr_matrix(rng.poisson(rate))


def covariance(mu, true, used, fraction):
    """Of the two parts, from the variance of a beta-binomial draw."""
    if used == 0:
        return fraction * (1 - fraction) * true * mu**2
    size, allowed = 1 / true, 1 / used
    return fraction * (1 - fraction) * mu**2 * (allowed / size - 1) / (allowed + 1)


def test_parts_add_up_and_hold_no_zeros():
    counts = draws([0.3, 4.0, 20.0], [0.0, 0.5, 0.2], n=2000)
    before = counts.copy()
    train, test = thin_counts(counts, fraction=0.3, overdispersion=np.array([0.0, 0.5, 0.2]), rng=1)
    assert (train + test != counts).nnz == 0
    assert (counts != before).nnz == 0
    for part in (train, test):
        assert part.format == "csr"
        assert part.dtype == np.float32
        assert part.has_sorted_indices
        assert part.nnz == 0 or part.data.min() > 0
    again = thin_counts(counts, fraction=0.3, overdispersion=np.array([0.0, 0.5, 0.2]), rng=1)[0]
    assert (again != train).nnz == 0
    assert (thin_counts(counts, rng=2)[0] != thin_counts(counts, rng=1)[0]).nnz > 0


@pytest.mark.parametrize("fraction", [0.5, 0.2])
def test_moments_are_those_of_theory(fraction):
    mu = np.array([0.2, 1.0, 5.0, 0.5, 3.0, 12.0])
    excess = np.array([0.0, 0.0, 0.0, 1.0, 0.4, 0.1])
    parts = thin_counts(draws(mu, excess), fraction=fraction, overdispersion=excess, rng=3)
    for part, share in zip(parts, (fraction, 1 - fraction), strict=True):
        values = part.toarray()
        variance = share * mu + excess / share * (share * mu) ** 2
        np.testing.assert_allclose(values.mean(0), share * mu, atol=5 * np.sqrt(variance.max() / N))
        np.testing.assert_allclose(values.var(0), variance, rtol=0.08)
        # the family is kept, not only its moments
        size = 1 / (excess[3] / share)
        expected = stats.nbinom.pmf(np.arange(4), size, size / (size + share * mu[3]))
        found = np.bincount(values[:, 3].astype(int), minlength=4)[:4] / N
        np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(0.25 / N))


def test_parts_are_independent():
    mu = np.array([0.2, 1.0, 5.0, 0.5, 3.0, 12.0])
    excess = np.array([0.0, 0.0, 0.0, 1.0, 0.4, 0.1])
    train, test = (p.toarray() for p in thin_counts(draws(mu, excess), overdispersion=excess, rng=4))
    pvalues = []
    for gene in range(len(mu)):
        assert abs(np.corrcoef(train[:, gene], test[:, gene])[0, 1]) < 4 / np.sqrt(N)
        cut = [np.minimum(part[:, gene], np.quantile(part[:, gene], 0.95)).astype(int) for part in (train, test)]
        table = stats.contingency.crosstab(*cut).count
        pvalues.append(stats.chi2_contingency(table).pvalue)
    assert stats.combine_pvalues(pvalues).pvalue > 0.001


@pytest.mark.parametrize(("true", "used"), [(0.5, 0.0), (0.5, 0.1), (0.2, 0.8)])
def test_covariance_of_parts_when_the_overdispersion_is_wrong(true, used):
    mu = 4.0
    train, test = (p.toarray().ravel() for p in thin_counts(draws([mu], [true]), overdispersion=used, rng=5))
    expected = covariance(mu, true, used, 0.5)
    assert (expected > 0) == (used < true)
    error = np.sqrt(train.var() * test.var() / N)
    assert abs(np.cov(train, test)[0, 1] - expected) < 5 * error
    assert abs(expected) > 10 * error


def test_overdispersion_is_found():
    excess = np.array([0.0, 0.1, 0.5, 1.5])
    rng = np.random.default_rng(0)
    sizes = rng.gamma(10, 0.1, size=8000)
    rate = rng.gamma(1 / np.maximum(excess, 1e-9), np.maximum(excess, 1e-9) * 3.0, size=(8000, 4))
    rate[:, 0] = 3.0
    counts = sparse.csr_matrix(rng.poisson(rate * sizes[:, None]))
    np.testing.assert_allclose(overdispersion(counts, sizes=sizes), excess, atol=0.02, rtol=0.1)
    # two kinds of cells: known apart, they are no overdispersion
    kind = np.arange(8000) % 2
    mixed = sparse.csr_matrix(rng.poisson(sizes[:, None] * np.where(kind, 6.0, 1.0)[:, None] * np.ones(3)))
    assert overdispersion(mixed, sizes=sizes).min() > 0.3
    np.testing.assert_allclose(overdispersion(mixed, sizes=sizes, groups=kind), 0, atol=0.02)


def test_overdispersion_without_bias_in_few_cells():
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(2.0, size=(12, 4000)))
    raw = counts.toarray().astype(float)
    sizes = np.ones(12)
    estimate = overdispersion(counts, sizes=sizes)
    mean = raw.mean(0)
    # one group of equal cells: the textbook formula with n - 1
    textbook = np.maximum((raw.var(0, ddof=1) - mean) * (11 / 12) / mean**2, 0)
    np.testing.assert_allclose(estimate, textbook, atol=1e-12)


def test_empty_and_silent():
    empty = sparse.csr_matrix((3, 2))
    assert all(part.nnz == 0 for part in thin_counts(empty, overdispersion=0.5))
    np.testing.assert_array_equal(overdispersion(empty), 0)


@pytest.mark.parametrize(
    ("values", "options", "match"),
    [
        ([[1.5]], {}, "Only counts"),
        ([[-1.0]], {}, "Only counts"),
        ([[np.nan]], {}, "Only counts"),
        ([[3e9]], {}, "Counts up to 2147483647 can be thinned"),
        ([[1.0]], {"fraction": 1.0}, r"fraction must lie between 0 and 1, found 1\.0"),
        ([[1.0]], {"overdispersion": np.ones(2)}, r"one for each of 1 genes; found shape \(2,\)"),
        ([[1.0]], {"overdispersion": -0.1}, "must not be negative"),
    ],
)
def test_bad_input(values, options, match):
    with pytest.raises(ValueError, match=match):
        thin_counts(sparse.csr_matrix(np.array(values)), **options)


def test_bad_sizes():
    with pytest.raises(ValueError, match="for each of 2 cells"):
        overdispersion(sparse.csr_matrix(np.ones((2, 2))), sizes=np.ones(3))
