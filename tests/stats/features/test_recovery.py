from __future__ import annotations

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
from scipy import sparse

from sparsesc.stats import auroc, recovery


@pytest.fixture
def half():
    """Half of 700 cells."""
    return np.random.default_rng(0).permutation(700) < 350


@pytest.fixture
def code(pbmc68k_code):
    """A sparse code of real cells, numbers to recover, and overlapping groups."""
    codes = pbmc68k_code.obsm["X_sae"]
    numbers = np.asarray(pbmc68k_code.obsm["X_pca"][:, :6], dtype=np.float64)
    groups = np.column_stack(
        [numbers[:, 0] > 0, numbers[:, 1] > 0, pbmc68k_code.obs["bulk_labels"] == "CD14+ Monocyte"]
    )
    return codes, numbers, groups


# what is found when the answer is known


@pytest.mark.parametrize("store", [np.asarray, sparse.csr_matrix, sparse.csc_array])
def test_permuted_variables_are_recovered_exactly(store, half):
    truth = np.random.default_rng(1).normal(size=(700, 5))
    order = np.array([3, 0, 4, 1, 2])
    found = recovery(store(truth[:, order] * -2.5), truth, train=half)
    np.testing.assert_array_equal(found.feature, np.argsort(order))
    np.testing.assert_array_equal(found.matched, np.argsort(order))
    np.testing.assert_array_equal(found.sign, -1)
    np.testing.assert_allclose([found.mean, found.max, found.mcc], 1.0, atol=1e-12)


def test_identity_recovers_groups_exactly(half):
    groups = np.eye(7, dtype=bool)[np.arange(700) % 7]
    found = recovery(sparse.csr_matrix(groups.astype(np.float32)), groups, train=half)
    assert found.measure == "auroc"
    assert found.mean == 1.0
    assert found.mcc == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_array_equal(found.feature, np.arange(7))


def test_noise_looks_good_on_training_cells_only():
    """The best of 2,000 features of noise, against the mean of the largest of as many |normal| values."""
    rng = np.random.default_rng(2)
    n, n_features = 400, 2000
    codes = sparse.random(2 * n, n_features, density=0.1, format="csr", rng=rng)
    found = recovery(codes, rng.normal(size=(2 * n, 40)), train=np.arange(2 * n) < n)
    largest = np.abs(rng.normal(size=(500, n_features))).max(axis=1).mean()
    assert found.train_score.mean() == pytest.approx(largest / np.sqrt(n), rel=0.05)
    # one |normal| value, of mean sqrt(2 / pi), is left
    assert found.mean == pytest.approx(np.sqrt(2 / np.pi / n), rel=0.35)
    assert found.mean < 0.3 * found.train_score.mean()


def test_noise_has_a_held_out_auroc_of_one_half():
    rng = np.random.default_rng(3)
    codes = sparse.random(800, 1000, density=0.2, format="csr", rng=rng)
    found = recovery(codes, rng.random((800, 60)) < 0.2, train=np.arange(800) < 400)
    assert found.train_score.min() > 0.55
    assert found.mean == pytest.approx(0.5, abs=0.02)


# agreement with others, on real cells


def test_pearson_is_numpys(code, half):
    codes, numbers, _ = code
    found = recovery(codes, numbers, train=half)
    dense = codes.toarray().astype(float)
    for j, y in enumerate(numbers.T):
        with np.errstate(invalid="ignore"):
            r = np.nan_to_num([np.corrcoef(x[half], y[half])[0, 1] for x in dense.T])
        best = np.abs(r).argmax()
        assert found.feature[j] == best
        assert found.sign[j] == np.sign(r[best])
        assert found.train_score[j] == pytest.approx(np.abs(r[best]), abs=1e-6)
        assert found.score[j] == pytest.approx(abs(np.corrcoef(dense[~half, best], y[~half])[0, 1]), abs=1e-6)
    assert found.mean == pytest.approx(found.score.mean())
    assert found.max == found.score.max()


def test_auroc_is_sklearns_for_overlapping_groups(code, half):
    from sklearn.metrics import roc_auc_score

    codes, _, groups = code
    found = recovery(codes, groups, train=half)
    dense = codes.toarray()
    for j, y in enumerate(groups.T):
        area = np.array([roc_auc_score(y[half], x[half]) for x in dense.T])
        best = np.abs(area - 0.5).argmax()
        assert found.feature[j] == best
        assert found.train_score[j] == pytest.approx(max(area[best], 1 - area[best]), abs=1e-9)
        assert found.score[j] == pytest.approx(roc_auc_score(y[~half], dense[~half, best] * found.sign[j]), abs=1e-9)


def test_auroc_is_that_of_partitions(code, half):
    codes, _, _ = code
    labels = np.arange(700) % 4
    found = recovery(codes, np.eye(4)[labels], train=half)
    expected = auroc(codes[half], labels[half])
    np.testing.assert_allclose(found.train_score, 0.5 + np.abs(expected - 0.5).max(axis=0), atol=1e-12)


def test_mcc_is_that_of_the_best_permutation():
    rng = np.random.default_rng(4)
    truth = rng.normal(size=(300, 4))
    codes = truth @ rng.normal(size=(4, 6)) + rng.normal(size=(300, 6))
    train = np.arange(300) < 150
    found = recovery(codes, truth, train=train)
    r = [np.abs(np.corrcoef(codes[rows].T, truth[rows].T)[:6, 6:]) for rows in (train, ~train)]
    best = max(permutations(range(6), 4), key=lambda features: r[0][features, range(4)].sum())
    np.testing.assert_array_equal(found.matched, best)
    assert found.mcc == pytest.approx(r[1][best, range(4)].mean(), abs=1e-9)


def test_dense_and_sparse_agree(code, half):
    codes, numbers, groups = code
    for truth in (numbers, groups):
        a, b = recovery(codes, truth, train=half), recovery(codes.toarray(), truth, train=half)
        np.testing.assert_array_equal(a.feature, b.feature)
        np.testing.assert_allclose(a.score, b.score, atol=1e-12)


def test_sparse_codes_are_never_dense():
    """A code of 10,000 features in a tenth of the memory of the dense array."""
    rng = np.random.default_rng(9)
    codes = sparse.random(3000, 10_000, density=0.001, format="csr", dtype=np.float32, rng=rng)
    truth, train = rng.normal(size=(3000, 4)), np.arange(3000) < 1500
    recovery(codes, truth, train=train)  # compiled before memory is watched
    tracemalloc.start()
    recovery(codes, truth, train=train)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.1 * 3000 * 10_000 * 4


# corners


def test_sign_flips_change_the_sign_only(code, half):
    codes, numbers, groups = code
    for truth in (numbers, groups):
        a, b = recovery(codes, truth, train=half), recovery(-codes, truth, train=half)
        np.testing.assert_array_equal(a.sign, -b.sign)
        np.testing.assert_allclose(a.score, b.score, atol=1e-12)
        assert a.mcc == pytest.approx(b.mcc, abs=1e-12)


def test_direction_of_auroc_comes_from_training_cells():
    """A relation that turns round is worse than chance, not better."""
    train = np.arange(200) < 100
    group = np.arange(200) % 2 == 0
    codes = np.where(train, group, ~group)[:, None].astype(float)
    assert recovery(codes, group, train=train).score[0] == 0.0


def test_constant_variables_are_left_out(half):
    truth = np.random.default_rng(5).normal(size=(700, 3))
    truth[:, 1] = 7.0
    found = recovery(truth, truth, train=half)
    np.testing.assert_array_equal(found.feature, [0, -1, 2])
    np.testing.assert_array_equal(found.matched, [0, -1, 2])
    assert np.isnan([found.score[1], found.train_score[1], found.matched_r[1]]).all()
    assert found.mean == found.mcc == pytest.approx(1.0)


def test_a_group_in_one_half_only_is_left_out(half):
    found = recovery(np.random.default_rng(6).random((700, 3)), half, train=half)
    assert np.isnan(found.mean)
    assert np.isnan(found.mcc)


def test_constant_features_are_not_chosen(half):
    truth = np.random.default_rng(7).normal(size=(700, 2))
    found = recovery(np.column_stack([np.full(700, 1e6), np.zeros(700), truth]), truth, train=half)
    np.testing.assert_array_equal(found.feature, [2, 3])


def test_variables_without_a_feature_count_nothing(half):
    truth = np.random.default_rng(8).normal(size=(700, 4))
    found = recovery(truth[:, :1], truth, train=half)
    assert sorted(found.matched) == [-1, -1, -1, 0]
    assert found.mcc == pytest.approx(0.25, abs=1e-9)


def test_measure_can_be_asked_for(half):
    groups = np.eye(3)[np.arange(700) % 3]
    assert recovery(groups, groups, train=half, measure="pearson").measure == "pearson"
    assert recovery(groups, groups * 1.0, train=half).measure == "auroc"
    with pytest.raises(ValueError, match="needs a truth of 0 and 1"):
        recovery(groups, groups * 2, train=half, measure="auroc")
    with pytest.raises(ValueError, match="Unknown measure: 'spearman'"):
        recovery(groups, groups, train=half, measure="spearman")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": np.zeros(10)}, "cells x features"),
        ({"codes": np.full((10, 2), np.nan)}, "codes holds 20 NaN"),
        ({"codes": sparse.csr_matrix(np.full((10, 1), np.inf))}, "codes holds 10 NaN or infinite"),
        ({"truth": np.zeros((9, 2))}, "each of 10 cells"),
        ({"truth": np.full(10, np.inf)}, "truth holds 10 NaN"),
        ({"train": np.arange(5)}, "train must be boolean"),
        ({"train": np.ones(9, bool)}, "train must be boolean"),
        ({"train": np.arange(10) < 2}, "three cells or more in both halves, found 2 and 8"),
    ],
)
def test_bad_input_is_told(change, message):
    good = {"codes": np.eye(10, 3), "truth": np.arange(10.0), "train": np.arange(10) < 5}
    arguments = {**good, **change}
    with pytest.raises(ValueError, match=message):
        recovery(arguments["codes"], arguments["truth"], train=arguments["train"])
