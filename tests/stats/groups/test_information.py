"""Mutual information on sparse codes: against scikit-learn, against a simulated truth, and its null."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import mutual_info_score

from sparsesc.stats import information_test, mutual_information
from sparsesc.stats.groups._information import cut_levels


def random_codes(rng, n, n_features, density=(0.05, 0.6)):
    active = rng.random((n, n_features)) < rng.uniform(*density, n_features)
    return np.where(active, rng.gamma(2, 1, (n, n_features)), 0.0)


def levels_of(codes, n_levels):
    """The same cut as dense integers, by numpy alone."""
    out = np.zeros(codes.shape, int)
    for f in range(codes.shape[1]):
        values = codes[codes[:, f] > 0, f]
        above = (values[None, :] > values[:, None]).sum(1)  # active rows with a larger value
        out[codes[:, f] > 0, f] = n_levels - above * n_levels // max(len(values), 1)
    return out


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    codes = random_codes(rng, 500, 40)
    codes[:, 0] = 0
    codes[:, 1] = 1.5  # always active, always alike
    codes[:, 2] = rng.gamma(2, 1, 500)  # always active
    codes[:, 3] = np.round(codes[:, 3])  # ties
    return codes, rng.integers(0, 3, 500), rng.integers(0, 5, 500)


@pytest.mark.parametrize("n_levels", [1, 3, 5])
def test_levels_hold_as_many_rows_each(cells, n_levels):
    codes = cells[0]
    found = cut_levels(sparse.csr_matrix(codes), n_levels)
    dense = np.zeros(codes.shape, int)
    for f in range(codes.shape[1]):
        part = slice(*found.indptr[f : f + 2])
        dense[found.rows[part], f] = found.bins[part]
    np.testing.assert_array_equal(dense, levels_of(codes, n_levels))
    sizes = np.bincount(dense[:, 2], minlength=n_levels + 1)
    assert sizes[0] == 0
    assert np.ptp(sizes[1:]) <= 1


def test_plug_in_is_that_of_scikit_learn(cells):
    codes, groups, strata = cells
    dense = levels_of(codes, 3)
    found = mutual_information(sparse.csr_matrix(codes), groups, held_out=False)
    expected = [mutual_info_score(column, groups) for column in dense.T]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    found = mutual_information(sparse.csr_matrix(codes), groups, strata=strata, held_out=False)
    parts = [strata == s for s in range(5)]
    expected = [
        sum(part.mean() * mutual_info_score(column[part], groups[part]) for part in parts) for column in dense.T
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_held_out_judges_each_row_by_all_others(cells):
    """One row after the other, as the definition has it."""
    codes, groups, strata = (part[:60] for part in cells)
    dense = levels_of(codes, 2)
    found = mutual_information(sparse.csr_matrix(codes), groups, strata=strata, n_levels=2)
    for f in (2, 3, 4, 5):
        gain = []
        for i in range(60):
            rest = (np.arange(60) != i) & (strata == strata[i])
            if not rest.any():
                continue
            share = (groups[rest] == groups[i]).mean()
            alike = groups[rest & (dense[:, f] == dense[i, f])] == groups[i]
            # one row with the shares of the stratum is added; without its group there, only its weight is left
            gain.append(np.log(((alike.sum() / share if share else 0) + 1) / (len(alike) + 1)))
        assert found[f] == pytest.approx(np.sum(gain) / 60)


def test_silent_and_constant_features_know_nothing(cells):
    codes, groups, strata = cells
    for held_out in (True, False):
        found = mutual_information(sparse.csr_matrix(codes), groups, strata=strata, held_out=held_out)
        np.testing.assert_allclose(found[:2], 0, atol=1e-12)


def test_information_is_near_the_truth_and_a_confounded_feature_has_none_within_strata():
    """Batch on or off by a known table; a type feature depends on the batch only because types do."""
    rng = np.random.default_rng(1)
    n = 4000
    kind = rng.integers(0, 2, n)
    batch = (rng.random(n) < np.where(kind == 0, 0.2, 0.8)).astype(int)
    p = np.array([0.1, 0.7])
    technical = rng.random(n) < p[batch]
    typical = rng.random(n) < p[kind]
    codes = sparse.csr_matrix(np.column_stack([technical, typical]).astype(float))
    test = information_test(codes, batch, strata=kind, n_levels=1, n_permutations=99, rng=rng)

    def entropy(q):
        return -(q * np.log(q) + (1 - q) * np.log(1 - q))

    truth = np.mean([entropy(w @ p) - w @ entropy(p) for w in ([0.8, 0.2], [0.2, 0.8])])
    assert test.information[0] == pytest.approx(truth, abs=0.015)
    assert abs(test.information[1]) < 0.001
    assert test.pval[0] == test.padj[0] == 0.01
    assert test.pval[1] > 0.05
    marginal = information_test(codes, batch, n_levels=1, n_permutations=99, rng=rng)
    assert marginal.information[1] > 0.05
    assert marginal.padj[1] == 0.01
    assert test.entropy == pytest.approx(entropy(0.2), abs=0.02)
    assert marginal.entropy == pytest.approx(np.log(2), abs=0.01)


def test_null_is_calibrated_by_feature_and_for_all_features():
    """Groups follow the strata and so do features, but not each other within: rejection at .05 in [.03, .06]."""
    rng = np.random.default_rng(2)
    n, n_features, n_sets = 240, 60, 350
    pvals, familywise, rises = [], [], []
    for _ in range(n_sets):
        strata = rng.integers(0, 3, n)
        groups = (rng.random(n) < np.array([0.2, 0.5, 0.8])[strata]).astype(int) + 2 * (rng.random(n) < 0.2)
        shift = rng.gamma(1, 1, (3, n_features))
        # features are dependent among one another, as those of one code are
        common = rng.gamma(2, 1, (n, 4)) @ rng.random((4, n_features))
        codes = np.maximum(shift[strata] + rng.normal(size=(n, n_features)) + common - np.median(common) - 1.5, 0)
        test = information_test(sparse.csr_matrix(codes), groups, strata=strata, n_permutations=39, rng=rng)
        pvals.append(test.pval[np.isfinite(test.pval)])
        familywise.append(np.nanmin(test.padj))
        rises.append(test.information.mean())
    p = np.concatenate(pvals)
    assert len(p) >= 20_000
    assert 0.03 <= (p <= 0.05).mean() <= 0.06
    assert abs((p <= 0.5).mean() - 0.5) < 0.02
    assert np.mean(np.array(familywise) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_sets)
    assert np.mean(np.array(familywise) <= 0.5) >= 0.4  # not conservative beyond use
    assert abs(np.mean(rises)) < 3 * np.std(rises) / np.sqrt(n_sets) + 1e-4


def test_rarely_active_features_are_not_tested(cells):
    codes, groups, strata = cells
    codes = codes.copy()
    codes[9:, 7] = 0
    test = information_test(
        sparse.csr_matrix(codes), groups, strata=strata, n_permutations=9, rng=np.random.default_rng(0)
    )
    assert np.isnan(test.pval[[0, 7]]).all()
    assert np.isnan(test.padj[[0, 7]]).all()
    assert np.isfinite(np.delete(test.padj, [0, 7])).all()
    assert (np.delete(test.padj, [0, 7]) >= np.delete(test.pval, [0, 7])).all()


def test_bad_input_is_refused():
    codes, groups = sparse.csr_matrix(np.eye(4)), np.arange(4)
    with pytest.raises(ValueError, match=r"must not be negative, found -1"):
        mutual_information(-codes, groups)
    with pytest.raises(ValueError, match="one whole number for each of 4 rows"):
        mutual_information(codes, groups[:3])
    with pytest.raises(ValueError, match="one whole number for each of 4 rows"):
        mutual_information(codes, groups, strata=np.zeros(4))
