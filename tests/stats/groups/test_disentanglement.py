from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import mutual_info_score

from sparsesc.stats import lms, msas, msgs, smi, spn

# of drvi-py 0.2.8, on `small()`: SMI, SPN, and LMS, MSAS, MSGS of both
SMI = [
    [0.71804678, 0.1960574, 0.30232104],
    [0.22632032, 0.6143127, 0.26254683],
    [0.27711405, 0.32155037, 0.68649102],
    [0.11189065, 0.0835842, 0.03539002],
]
SPN = [
    [0.72727273, 0.23076923, 0.41031941],
    [0.09090909, 0.69230769, 0.33660934],
    [0.09090909, 0.23076923, 0.63144963],
    [0, 0, 0],
]
AGGREGATED = {"smi": [0.6729501654, 0.6729501654, 0.3726216788], "spn": [0.6836766837, 0.6836766837, 0.4396774397]}


def small():
    rng = np.random.default_rng(7)
    groups = rng.integers(0, 3, 60)
    return rng.normal(size=(60, 4)) + np.eye(4)[groups] * 2, groups


def signed():
    """Few cells, many ties, values of both signs, a column of nothing and one without zeros."""
    rng = np.random.default_rng(3)
    Z = rng.integers(-2, 3, size=(7, 5)).astype(float)
    Z[:, 3], Z[:, 4] = 0, [1, 2, 1, 2, 3, 1, 1]
    return Z, np.array([0, 0, 1, 0, 1, 1, 0])


def sorted_pairs(z, y):
    """SPN of one feature before its clip, cells in the order in which they stand."""
    y = y[np.argsort(z, kind="stable")]
    return (y[1:] & y[:-1]).sum() / (y.sum() - 1) - y.mean()


def test_golden_numbers_of_drvi():
    Z, groups = small()
    for score, golden in ((smi, SMI), (spn, SPN)):
        found = score(sparse.csr_matrix(Z), groups)
        np.testing.assert_allclose(found, golden, atol=1e-8)
        np.testing.assert_allclose([f(found) for f in (lms, msas, msgs)], AGGREGATED[score.__name__], atol=1e-9)


@pytest.mark.filterwarnings("ignore")  # of theirs
def test_drvi_itself():
    drvi = pytest.importorskip("drvi.utils.metrics", reason="drvi-py is not installed; its golden numbers are tested")
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 5, 400)
    members = np.eye(5)[groups]
    dense = rng.normal(size=(400, 12)) + 2 * members @ rng.random((5, 12))
    ties = sparse.random(400, 12, density=0.3, rng=rng).toarray() * (1 + 2 * members.repeat(3, axis=1)[:, :12])
    for Z in (dense, ties):
        found = smi(sparse.csr_matrix(Z), groups)
        np.testing.assert_allclose(found, drvi.discrete_scaled_mutual_info_score(Z, gt_one_hot=members), atol=1e-12)
        for ours, theirs in (
            (lms, drvi.latent_matching_score),
            (msas, drvi.most_similar_averaging_score),
            (msgs, drvi.most_similar_gap_score),
        ):
            assert ours(found) == pytest.approx(theirs(found), abs=1e-12)
    np.testing.assert_allclose(
        spn(sparse.csr_matrix(dense), groups), drvi.nn_alignment_score(dense, gt_one_hot=members), atol=1e-12
    )
    orders = [rng.permutation(400) for _ in range(200)]
    theirs = np.mean([drvi.nn_alignment_score(ties[o], gt_one_hot=members[o]) for o in orders], axis=0)
    found = spn(sparse.csr_matrix(ties), groups)
    clear = found > 0.1  # where the clip at 0 does not meet single orders
    assert clear.sum() > 5
    np.testing.assert_allclose(found[clear], theirs[clear], atol=0.015)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_smi_is_sklearns_on_real_cells(pbmc68k_code, kind):
    codes = pbmc68k_code.obsm["X_sae"] if kind == "sparse" else pbmc68k_code.obsm["X_pca"]
    codes = sparse.csr_matrix(codes).astype(np.float64)[:, :12]
    groups = pbmc68k_code.obs["bulk_labels"].cat.codes.to_numpy()
    found = smi(codes, groups)
    for f, z in enumerate(codes.toarray().T):
        bins = np.searchsorted(np.linspace(z.min(), z.max(), 11)[1:-1], z, side="right")
        for c in range(found.shape[1]):
            y = groups == c
            entropy = -(y.mean() * np.log(y.mean()) + (1 - y.mean()) * np.log(1 - y.mean()))
            assert found[f, c] == pytest.approx(mutual_info_score(bins, y) / entropy, abs=1e-9)


def test_spn_without_ties_is_a_count(pbmc68k_code):
    Z = np.asarray(pbmc68k_code.obsm["X_pca"], dtype=np.float64)
    groups = pbmc68k_code.obs["bulk_labels"].cat.codes.to_numpy()
    found = spn(sparse.csr_matrix(Z), groups)
    for f in range(0, Z.shape[1], 5):
        for c in range(found.shape[1]):
            y = groups == c
            expected = max(sorted_pairs(Z[:, f], y), 0) / (1 - y.mean())
            assert found[f, c] == pytest.approx(expected, abs=1e-12)


def test_spn_with_ties_is_the_mean_over_all_orders_of_the_cells():
    Z, groups = signed()
    orders = [list(o) for o in itertools.permutations(range(7))]
    found = spn(sparse.csr_matrix(Z), groups)
    for f in range(5):
        for c in range(2):
            y = groups == c
            expected = np.mean([sorted_pairs(Z[o, f], y[o]) for o in orders[:: 1 if f == 0 else 7]])
            tolerance = 1e-12 if f == 0 else 0.03
            assert found[f, c] == pytest.approx(max(expected, 0) / (1 - y.mean()), abs=tolerance)


@pytest.mark.parametrize("score", [smi, spn])
def test_what_cannot_be_judged(score):
    Z = sparse.csr_matrix(np.array([[0, 1.0], [0, 2], [0, 0], [0, 3]]))
    found = score(Z, np.array([0, 0, 1, 1]), 3)
    np.testing.assert_allclose(found[0, :2], 0, atol=1e-12)
    assert np.isnan(found[:, 2]).all()
    assert np.isnan(score(Z, np.zeros(4, int))).all()
    assert np.isnan(spn(Z, np.array([0, 0, 0, 1]))[:, 1]).all()


def test_a_perfect_feature_scores_one():
    groups = np.repeat([0, 1, 2], 20)
    Z = sparse.csr_matrix(np.eye(3)[groups] * 5)
    np.testing.assert_allclose(np.diag(smi(Z, groups)), 1)
    # one pair less: neighbors of the cells that are silent in no order
    np.testing.assert_allclose(np.diag(spn(Z, groups)), 1)
    assert lms(smi(Z, groups)) == pytest.approx(1)


def test_features_are_chosen_by_other_cells():
    scores = np.array([[0.9, 0.1], [0.2, 0.3], [0.5, 0.8]])
    train = np.array([[0.1, 0.2], [0.8, 0.9], [0.7, 0.1]])
    assert lms(scores, train=train) == pytest.approx((0.5 + 0.3) / 2)
    assert msas(scores, train=train) == pytest.approx((0.2 + 0.3) / 2)
    assert msgs(scores, train=train) == pytest.approx(((0.2 - 0.5) + (0.3 - 0.1)) / 2)
    assert lms(scores[:1]) == pytest.approx(0.45)
    assert np.isnan(msgs(scores[:1]))


@pytest.mark.parametrize("aggregate", [lms, msas, msgs])
def test_bad_tables_are_refused(aggregate):
    with pytest.raises(ValueError, match="features x groups of one shape"):
        aggregate(np.ones((3, 2)), train=np.ones((2, 3)))
    with pytest.raises(ValueError, match="hold NaN"):
        aggregate(np.array([[np.nan, 1.0]]))
