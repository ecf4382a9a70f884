from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import hypergeom
from sklearn.metrics import f1_score, precision_score, recall_score

from sparsesc.stats.groups._where import LABEL_COST, log_hypergeometric_tail, score_where

N_GROUPS = 6


@pytest.fixture(scope="module")
def cells():
    """Labels of 600 cells, half of which score, and features of one, two, three and five of them."""
    rng = np.random.default_rng(0)
    groups = rng.choice(N_GROUPS, 600, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
    test = rng.random(600) < 0.5
    members = [(0,), (1, 2), (3, 4, 5), (0, 1, 2, 3, 4), ()]
    on = np.array([np.isin(groups, m) & (rng.random(600) < 0.9) | (rng.random(600) < 0.03) for m in members]).T
    return on, groups, test


def score(cells, **options):
    on, groups, test = cells
    return score_where(sparse.csr_matrix(on.astype(np.float32)), groups, test, n_groups=N_GROUPS, **options)


def test_unions_of_up_to_three_labels_are_found(cells):
    found = score(cells)
    assert [set(row[row >= 0]) for row in found.groups[:3]] == [{0}, {1, 2}, {3, 4, 5}]
    assert not found.broad[:3].any()


def test_a_feature_of_half_of_the_labels_is_broad():
    groups = np.tile(np.arange(8), 50)
    on = sparse.csr_matrix(np.stack([groups < 4, groups < 3], axis=1).astype(np.float32))
    found = score_where(on, groups, np.random.default_rng(0).random(400) < 0.5, n_groups=8)
    assert found.broad.tolist() == [True, False]


def test_largest_label_among_the_cells_comes_first(cells):
    on, groups, test = cells
    first = score(cells).groups
    for f in range(3):
        hits = [int((on[:, f] & (groups == g) & ~test).sum()) for g in first[f] if g >= 0]
        assert hits == sorted(hits, reverse=True)


def test_scores_are_those_of_sklearn_on_the_cells_that_did_not_choose(cells):
    on, groups, test = cells
    found = score(cells)
    for f in range(on.shape[1]):
        inside, called = np.isin(groups, found.groups[f]), on[:, f]
        assert found.f1[f] == pytest.approx(f1_score(inside[test], called[test]))
        assert found.precision[f] == pytest.approx(precision_score(inside[test], called[test]))
        assert found.recall[f] == pytest.approx(recall_score(inside[test], called[test]))
        assert found.precision_all[f] == pytest.approx(precision_score(inside, called))
        assert found.n_members[f] == inside.sum()
        assert found.share[f] == pytest.approx(inside[test].mean())


def test_the_best_union_is_the_best_of_all(cells):
    on, groups, test = cells
    choose = ~test
    found = score(cells)
    for f in range(3):
        best = -np.inf
        for size in (1, 2, 3):
            for union in combinations(range(N_GROUPS), size):
                inside = np.isin(groups, union)[choose]
                f1 = f1_score(inside, on[choose, f])
                null = 2 * on[choose, f].mean() * inside.mean() / (on[choose, f].mean() + inside.mean())
                best = max(best, (f1 - null) / (1 - null) - LABEL_COST * (size - 1))
        assert found.chosen_by[f] == pytest.approx(best)


def test_mean_f1_of_shuffled_labels_is_the_null(cells):
    on, groups, test = cells
    found = score(cells)
    inside = np.isin(groups, found.groups[1])[test]
    rng = np.random.default_rng(1)
    drawn = [f1_score(rng.permutation(inside), on[test, 1]) for _ in range(400)]
    assert found.f1_null[1] == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 20)


def test_labels_that_may_not_be_chosen_are_not(cells):
    eligible = np.ones(N_GROUPS, bool)
    eligible[0] = False
    assert not (score(cells, eligible=eligible).groups == 0).any()


def test_a_silent_feature_has_no_label():
    found = score_where(sparse.csr_matrix((20, 1), dtype=np.float32), np.arange(20) % 2, np.arange(20) < 10, n_groups=2)
    assert (found.groups == -1).all()
    assert found.log_p[0] == 0
    assert found.excess[0] == 0


def test_tail_agrees_with_scipy():
    rng = np.random.default_rng(0)
    n = 400
    called, members = rng.integers(1, n, 300), rng.integers(1, n, 300)
    hits = hypergeom.rvs(n, members, called, random_state=1)
    expected = hypergeom.logsf(hits - 1, n, members, called)
    np.testing.assert_allclose(log_hypergeometric_tail(hits, called, members, n), expected, rtol=1e-7, atol=1e-9)


def test_p_values_hold_when_labels_are_shuffled(cells):
    """The union is chosen on other cells, so the exact p of the test cells needs no correction."""
    on, groups, test = cells
    rng = np.random.default_rng(2)
    p = []
    for _ in range(200):
        shuffled = rng.permutation(groups)
        p.append(np.exp(score((on, shuffled, test)).log_p))
    p = np.concatenate(p)
    assert 0.01 < (p <= 0.05).mean() < 0.06
    assert (p <= 0.001).mean() < 0.005
