from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import f1_score

from sparsesc.stats import best_detector, best_f1
from sparsesc.stats.features._splitting import find_absorbers


def test_first_feature_is_the_best_of_all(pbmc68k_code):
    codes, labels = pbmc68k_code.obsm["X_sae"], pbmc68k_code.obs["bulk_labels"]
    groups = labels.cat.codes.to_numpy()
    f1, threshold = best_f1(codes, groups)
    for group in range(10):
        member = groups == group
        found = best_detector(codes, member)
        assert found.f1[0] == pytest.approx(f1[:, group].max())
        assert found.thresholds[0] == threshold[found.features[0], group]
        for n in range(1, len(found.features) + 1):
            assert found.f1[n - 1] == pytest.approx(f1_score(member, found.called(codes, n)))
        assert (np.diff(found.f1) > 0.03).all()
        assert len(set(found.features)) == len(found.features)


def test_a_group_in_two_halves_takes_two_features():
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((600, 40)) < 0.05, rng.uniform(0.1, 0.5, (600, 40)), 0.0)
    dense[:60, 7], dense[60:100, 3] = 1.0, 1.0
    member = np.arange(600) < 100
    found = best_detector(sparse.csr_matrix(dense), member)
    assert found.features.tolist() == [7, 3]
    assert found.f1 == pytest.approx([0.75, 1.0])
    assert best_detector(sparse.csr_matrix(dense), member, max_features=1).features.tolist() == [7]


def test_chance_does_not_split():
    rng = np.random.default_rng(1)
    n_features = []
    for _ in range(20):
        dense = np.where(rng.random((300, 200)) < 0.05, rng.random((300, 200)), 0.0)
        dense[:10, 0] = np.where(np.arange(10) < 7, 2.0, 0.0)  # a small group, of which three cells are missed
        n_features.append(len(best_detector(sparse.csr_matrix(dense), np.arange(300) < 10).features))
    assert np.mean(np.array(n_features) > 1) <= 0.1


def test_absorbers_are_found_in_order():
    rng = np.random.default_rng(0)
    active = (rng.random((200, 30)) < 0.1).astype(np.int64)
    missed = np.arange(200) < 60
    active[:, [4, 9, 12]] = 0
    active[:40, 4] = active[30:60, 9] = active[60:120, 12] = 1
    outside = np.zeros(30, int)
    outside[5] = 500
    n_active = active.sum(0) + outside
    allowed = np.ones(30, bool)
    matrix = sparse.csr_matrix(active)
    assert find_absorbers(matrix, missed, n_active, allowed=allowed).tolist() == [4, 9]
    allowed[4] = False
    assert find_absorbers(matrix, missed, n_active, allowed=allowed).tolist() == [9]
    active[:, 13] = np.arange(200) < 110  # most of the group
    assert find_absorbers(sparse.csr_matrix(active), missed, active.sum(0) + outside, allowed=allowed).tolist() == [9]
    outside[9] = 100  # mostly active elsewhere
    assert len(find_absorbers(matrix, missed, active.sum(0) + outside, allowed=allowed)) == 0
    assert len(find_absorbers(matrix, np.zeros(200, bool), n_active, allowed=allowed)) == 0
