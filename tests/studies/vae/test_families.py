from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, sparse, stats

from sparsesc.studies.vae._families import FAMILIES, CountFits, fit_families, join_fits

POISSON, NB, ZINB, LOG_NORMAL = range(4)


def simulate(n_cells, n_genes, mean, phi=0.0, inflation=0.0, *, seed=0, spread=0.5):
    """Counts of cells of known relative sizes."""
    rng = np.random.default_rng(seed)
    sizes = rng.lognormal(0, spread, n_cells)
    sizes /= sizes.mean()
    mu = sizes[:, None] * np.broadcast_to(mean, n_genes)
    rate = mu if phi == 0 else mu * rng.gamma(1 / phi, phi, mu.shape)
    kept = rng.random(mu.shape) >= inflation
    return sparse.csr_matrix(rng.poisson(rate * kept).astype(float)), sizes


def fit(counts, sizes, groups=None, families=FAMILIES) -> CountFits:
    return join_fits([block for _, block in fit_families(counts, sizes, groups, families=families)])


def log_normal_loglik(x, sizes, center, sd):
    upper = stats.norm.cdf((np.log1p((x + 0.5) / sizes) - center) / sd)
    lower = stats.norm.cdf((np.log1p(np.maximum(x - 0.5, 0) / sizes) - center) / sd)
    return np.log(upper - np.where(x > 0, lower, 0)).sum()


def test_likelihoods_are_those_of_scipy_at_their_maximum():
    """An independent search on the densities of scipy finds the same likelihoods: four families, two groups."""
    counts, sizes = simulate(200, 2, [0.5, 4], 0.7, 0.2, seed=1)
    groups = np.arange(200) % 2
    found = fit(counts, sizes, groups)

    def nb(theta, x):
        mu, r = sizes * np.exp(theta[groups]), np.exp(-theta[2])
        return stats.nbinom.logpmf(x, r, r / (r + mu))

    def zinb(theta, x):
        share = 1 / (1 + np.exp(-theta[3]))
        return np.log((1 - share) * np.exp(nb(theta, x)) + share * (x == 0))

    for gene in range(2):
        x = counts[:, [gene]].toarray().ravel()
        rates = np.array([x[groups == k].sum() / sizes[groups == k].sum() for k in range(2)])
        np.testing.assert_allclose(found.loglik[gene, POISSON], stats.poisson.logpmf(x, sizes * rates[groups]).sum())
        start = np.r_[np.log(rates), 0.0]
        for family, function, first in (
            (NB, lambda t, x=x: -nb(t, x).sum(), start),
            (ZINB, lambda t, x=x: -zinb(t, x).sum(), np.r_[start, -1.0]),
            (LOG_NORMAL, lambda t, x=x: -log_normal_loglik(x, sizes, t[groups], np.exp(t[2])), [0.0, 0.0, 0.0]),
        ):
            best = optimize.minimize(function, first, method="Nelder-Mead", options={"maxfev": 6000, "fatol": 1e-7})
            assert found.loglik[gene, family] == pytest.approx(-best.fun, abs=2e-3), FAMILIES[family]


def test_statsmodels_finds_the_same_negative_binomial():
    """Same likelihood, overdispersion and expected zeros as an independent implementation with exposure."""
    sm = pytest.importorskip("statsmodels.api", reason="statsmodels is not installed")
    counts, sizes = simulate(300, 3, [0.3, 2, 20], 0.8, seed=2)
    found = fit(counts, sizes, families=("nb",))
    for gene in range(3):
        x = counts[:, [gene]].toarray().ravel()
        model = sm.NegativeBinomial(x, np.ones((300, 1)), exposure=sizes)
        theirs = model.fit(disp=0, maxiter=200, method="bfgs", gtol=1e-8)
        assert found.loglik[gene, NB] == pytest.approx(theirs.llf, abs=1e-4)
        assert found.overdispersion[gene] == pytest.approx(theirs.params[1], rel=1e-3)
        zeros = np.mean((1 + theirs.params[1] * sizes * np.exp(theirs.params[0])) ** (-1 / theirs.params[1]))
        assert found.zeros[gene, NB] == pytest.approx(zeros, abs=1e-4)


def test_parameters_are_found_again():
    counts, sizes = simulate(3000, 30, 3.0, 0.5, 0.3, seed=3)
    found = fit(counts, sizes)
    assert np.median(found.zero_inflation) == pytest.approx(0.3, abs=0.02)
    assert np.median(found.overdispersion_zinb) == pytest.approx(0.5, abs=0.03)
    assert (found.overdispersion > 0.9).all()  # the inflation counts as overdispersion without a place of its own
    observed = 1 - counts.getnnz(axis=0) / 3000
    np.testing.assert_allclose(found.zeros[:, ZINB], observed, atol=0.005)
    assert (np.array(FAMILIES)[found.bic.argmin(1)] == "zinb").all()


@pytest.mark.parametrize(("phi", "inflation", "family"), [(0.0, 0.0, "poisson"), (0.8, 0.0, "nb"), (0.4, 0.4, "zinb")])
def test_bic_chooses_the_family_that_made_the_counts(phi, inflation, family):
    counts, sizes = simulate(1500, 60, 2.0, phi, inflation, seed=4)
    best = np.array(FAMILIES)[fit(counts, sizes).bic.argmin(1)]
    assert (best == family).mean() > 0.9


def test_bic_chooses_the_log_normal_where_it_made_the_counts():
    rng = np.random.default_rng(5)
    sizes = rng.lognormal(0, 0.5, 1500)
    y = rng.normal(1.5, 0.6, (1500, 40))
    counts = np.maximum(np.round(sizes[:, None] * np.expm1(y)), 0)
    found = fit(sparse.csr_matrix(counts), sizes)
    assert (found.bic.argmin(1) == LOG_NORMAL).mean() > 0.9


def rejected(p, level=0.05):
    return float((p < level).mean())


def test_overdispersion_is_calibrated():
    """Poisson counts, from a few to several a cell: 24,000 tests, half of a chi-squared being the null."""
    rates = []
    for seed, mean in enumerate([0.05, 0.1, 0.3, 1.0, 3.0, 0.5]):
        counts, sizes = simulate(400, 4000, mean, seed=10 + seed)
        p = fit(counts, sizes, families=("nb",)).pval_overdispersion
        rates.append(rejected(p))
        assert rejected(p) < 0.06, mean
        assert (p == 1).mean() > 0.45  # the other half: no overdispersion fits best
        assert rejected(p, 0.01) < 0.015
    assert 0.03 < np.mean(rates) < 0.06


def test_overdispersion_of_rare_genes_is_not_exaggerated():
    """Genes with a handful of counts: the test may only be conservative."""
    for seed, mean in enumerate([0.005, 0.01, 0.02]):
        counts, sizes = simulate(1500, 3000, mean, seed=20 + seed)
        assert rejected(fit(counts, sizes, families=("nb",)).pval_overdispersion) < 0.06


def test_calibration_holds_with_rates_by_group():
    """Two kinds of cells with rates of their own: taken together they are overdispersed, apart they are not."""
    rng = np.random.default_rng(30)
    kind = np.arange(400) % 2
    sizes = rng.lognormal(0, 0.4, 400)
    counts = sparse.csr_matrix(rng.poisson(sizes[:, None] * np.array([0.3, 1.5])[kind][:, None], (400, 4000)) * 1.0)
    apart = fit(counts, sizes, kind, families=("nb",)).pval_overdispersion
    assert 0.03 < rejected(apart) < 0.06
    assert rejected(fit(counts[:, :200], sizes, families=("nb",)).pval_overdispersion) > 0.9


def test_zero_inflation_is_calibrated():
    """Negative binomial counts, many or few of them: the test of the zero-inflated family against it."""
    rates = []
    for mean, phi in [(3.0, 0.5), (1.5, 1.0), (0.5, 1.0), (0.3, 3.0)]:
        p = []
        for seed in range(5):  # other cells each time
            counts, sizes = simulate(400, 400, mean, phi, seed=40 + seed)
            p.append(fit(counts, sizes, families=("nb", "zinb")).pval_inflation)
        rates.append(rejected(np.concatenate(p)))
    assert 0.03 < np.mean(rates) < 0.06
    assert max(rates) < 0.065  # 0.06, and what 2,000 draws add to it
    counts, sizes = simulate(400, 500, 1.0, seed=50)  # Poisson counts: neither has a place
    assert rejected(fit(counts, sizes, families=("nb", "zinb")).pval_inflation) < 0.06


def test_cells_of_one_size_or_thousands_make_no_difference():
    """Joining cells without a count changes nothing that matters: exact where sizes are equal."""
    counts, _ = simulate(500, 5, 0.4, 0.6, seed=6)
    joined = fit(counts, np.ones(500)).loglik
    x = counts.toarray()
    for gene in range(5):
        r = x[:, gene].mean()
        np.testing.assert_allclose(joined[gene, POISSON], stats.poisson.logpmf(x[:, gene], r).sum())
    # every size by itself: no two cells within one per cent
    far = np.exp(np.linspace(0, 12, 500))
    exact = stats.poisson.logpmf(x[:, 0], far * x[:, 0].sum() / far.sum()).sum()
    np.testing.assert_allclose(fit(counts, far).loglik[0, POISSON], exact)


def test_genes_without_counts_and_groups_without_counts():
    counts, sizes = simulate(200, 3, 1.0, 0.5, seed=7)
    counts = counts.tolil()
    counts[:, 0] = 0
    groups = np.arange(200) % 2
    counts[groups == 1, 1] = 0
    found = fit(counts.tocsr(), sizes, groups)
    np.testing.assert_array_equal(found.loglik[0], 0)
    np.testing.assert_array_equal(found.zeros[0], 1)
    assert (found.pval_overdispersion[0], found.pval_inflation[0]) == (1, 1)
    own = fit(counts.tocsr()[groups == 0], sizes[groups == 0])
    np.testing.assert_allclose(found.loglik[1], own.loglik[1], atol=1e-4)


@pytest.mark.parametrize("sizes", [np.ones(3), np.zeros(10), np.full(10, np.nan), -np.ones(10)])
def test_sizes_must_be_positive(sizes):
    with pytest.raises(ValueError, match="positive number for each of 10 cells"):
        next(fit_families(sparse.csr_matrix((10, 2)), sizes))
