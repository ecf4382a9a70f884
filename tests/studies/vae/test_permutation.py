from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sparsesc.studies.vae._permutation import explained


def make(n_samples, n_cells, n_columns, rng, *, between=1.0):
    """Noise with an offset for each sample."""
    sample = np.repeat(np.arange(n_samples), n_cells)
    return sample, rng.normal(size=(len(sample), n_columns)) + between * rng.normal(size=(n_samples, n_columns))[sample]


def test_share_is_eta_squared_or_a_squared_correlation():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(60, 3))
    codes = rng.integers(3, size=60)
    found = explained(Z, codes, n_permutations=5, rng=rng)
    for j in range(3):
        groups = [Z[codes == c, j] for c in range(3)]
        f = stats.f_oneway(*groups).statistic
        assert found.share[j] == pytest.approx(f * 2 / (f * 2 + 57))
    numbers = rng.normal(size=60)
    found = explained(Z, numbers, n_permutations=5, rng=rng)
    np.testing.assert_allclose(found.share, [stats.pearsonr(Z[:, j], numbers).statistic ** 2 for j in range(3)])


def test_share_within_strata_does_not_see_what_strata_differ_by():
    """A label that follows the strata, and values that do too, have nothing in common within strata."""
    rng = np.random.default_rng(1)
    strata, Z = make(4, 200, 2, rng, between=5.0)
    codes = (rng.random(800) < np.array([0.1, 0.3, 0.6, 0.9])[strata]).astype(int)
    Z[:, 1] += 2 * codes
    found = explained(Z, codes, strata=strata, n_permutations=99, rng=rng)
    assert found.share[0] < 0.02 < 0.3 < found.share[1]
    assert found.pval[0] > 0.05
    assert found.pval[1] == 0.01
    assert explained(Z, codes, n_permutations=99, rng=rng).pval[0] == 0.01  # by chance alone, if strata are ignored
    numbers = codes + 0.1 * rng.normal(size=800)
    again = explained(Z, numbers, strata=strata, n_permutations=99, rng=rng)
    np.testing.assert_allclose(again.share, found.share, atol=0.05)


def test_shuffling_stays_within_strata():
    """Where every stratum has one label, there is nothing to shuffle and nothing to find."""
    rng = np.random.default_rng(2)
    strata, Z = make(4, 10, 3, rng)
    found = explained(Z, strata % 2, strata=strata, n_permutations=9, rng=rng)
    np.testing.assert_array_equal(found.pval, 1)
    np.testing.assert_allclose(found.share, 0, atol=1e-12)


def test_constant_columns_are_not_tested():
    found = explained(
        np.c_[np.full(20, 3.3), np.arange(20.0)], np.arange(20) % 2, n_permutations=9, rng=np.random.default_rng()
    )
    assert np.isnan(found.share[0])
    assert np.isnan(found.pval[0])
    assert np.isfinite(found.pval[1])


def test_few_arrangements_give_no_small_p():
    """Three against three: one in ten arrangements is as extreme, and p says so."""
    values = np.array([0.0, 1, 2, 10, 11, 12])[:, None]
    found = explained(values, np.array([0, 0, 0, 1, 1, 1]), n_permutations=4000, rng=np.random.default_rng(3))
    assert found.pval[0] == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_calibration(kind):
    """20,000 tests: samples as units, and cells within samples of very different composition."""
    means, within = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        sample, Z = make(14, 12, 1000, rng)
        label = rng.permutation(14) % 2 if kind == "labels" else rng.exponential(size=14)
        bulk = np.stack([Z[sample == s].mean(0) for s in range(14)])
        means.append(explained(bulk, label, n_permutations=199, rng=rng).pval)
        share = rng.beta(0.5, 0.5, 14)[sample]
        cells = (rng.random(168) < share).astype(int) if kind == "labels" else share + rng.normal(size=168) ** 2
        within.append(explained(Z, cells, strata=sample, n_permutations=199, rng=rng).pval)
    for p in (np.concatenate(means), np.concatenate(within)):
        assert 0.03 < (p <= 0.05).mean() < 0.06
        assert 0.005 < (p <= 0.01).mean() < 0.015
        assert stats.kstest(p, "uniform").statistic < 0.03
