"""All scores at once: against plain numpy and scipy, and with labels that mean nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import mutual_info_score, roc_auc_score

from sparsesc.stats.core._holdout import stratified_holdout
from sparsesc.stats.groups._representation import METRICS, RepresentationScores, shuffled


def plain(Z, groups, train, judged):
    """AUROC, coverage, LMS, MSAS and MSGS on SMI and singular features, by loops over sklearn's functions."""
    Y = np.eye(len(judged), dtype=bool)[groups][:, judged]
    halves = [(Z[rows], Y[rows]) for rows in (train, ~train)]
    areas, tables = [], []
    for part, y in halves:
        areas.append([[roc_auc_score(y[:, c], z) for c in range(y.shape[1])] for z in part.T])
        bins = [np.searchsorted(np.linspace(z.min(), z.max(), 11)[1:-1], z, side="right") for z in part.T]
        share = y.mean(0)
        entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
        information = [[mutual_info_score(b, y[:, c]) for c in range(y.shape[1])] for b in bins]
        tables.append(np.array(information) / entropy)
    chosen, scored = np.array(areas)
    columns = np.arange(Y.shape[1])
    best = np.abs(chosen - 0.5).argmax(0)
    found = np.where(chosen[best, columns] >= 0.5, scored[best, columns], 1 - scored[best, columns])
    features, matched = linear_sum_assignment(-tables[0])
    order = np.argsort(-tables[0], axis=0)
    with np.errstate(invalid="ignore"):
        r = np.nan_to_num(np.corrcoef(Z.T, Y.T)[: Z.shape[1], Z.shape[1] :])
    strong = np.abs(r) > 0.5
    one = strong.sum(1) == 1
    return {
        "singular": one.sum(),
        "singular_share": one.mean(),
        "singular_labels": strong[one].any(0).sum(),
        "auroc": found.mean(),
        "coverage": (found >= 0.9).mean(),
        "lms_smi": tables[1][features, matched].sum() / len(columns),
        "msas_smi": tables[1][order[0], columns].mean(),
        "msgs_smi": (tables[1][order[0], columns] - tables[1][order[1], columns]).mean(),
    }


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_scores_are_those_of_a_plain_implementation(pbmc68k_code, kind):
    Z = pbmc68k_code.obsm["X_sae"].toarray() if kind == "sparse" else np.asarray(pbmc68k_code.obsm["X_pca"])
    Z = Z[:, :24].astype(np.float64)
    groups = pbmc68k_code.obs["bulk_labels"].cat.codes.to_numpy().astype(int)
    judged = np.bincount(groups) >= 10
    train = ~stratified_holdout([groups], 0.5, np.random.default_rng(0))
    found = RepresentationScores(sparse.csr_matrix(Z), train, np.ones(24, bool)).scores(groups, judged)
    assert tuple(found) == METRICS
    for name, value in plain(Z, groups, train, judged).items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
    assert found["lms_smi_distinct"] == found["lms_smi"]


def test_copies_hide_the_gap_until_they_are_removed():
    rng = np.random.default_rng(0)
    groups = np.arange(400) % 4
    Z = np.eye(4)[groups] * (1 + rng.random((400, 4)))
    Z = np.hstack([Z, Z * 2])
    train = np.arange(400) < 200
    found = RepresentationScores(sparse.csr_matrix(Z), train, np.arange(8) < 4).scores(groups, np.ones(4, bool))
    assert found["msgs_smi"] == pytest.approx(0)
    assert found["msgs_smi_distinct"] > 0.7
    assert found["lms_smi_distinct"] == pytest.approx(found["lms_smi"])


def test_shuffling_stays_within_each_half():
    rng = np.random.default_rng(0)
    groups, train = rng.integers(0, 4, 500), rng.random(500) < 0.5
    new = shuffled(groups, train, rng)
    assert (new != groups).mean() > 0.5
    for rows in (train, ~train):
        np.testing.assert_array_equal(np.bincount(new[rows]), np.bincount(groups[rows]))


def test_p_values_of_labels_that_mean_nothing_are_uniform():
    rng = np.random.default_rng(1)
    n, n_sets, n_shuffled = 90, 40, 9
    rank = np.empty((n_sets, len(METRICS)))
    for i in range(n_sets):
        codes = sparse.random(n, 12, density=0.3, format="csr", rng=rng)
        groups = rng.integers(0, 3, n)
        train = ~stratified_holdout([groups], 0.5, rng)
        scorer = RepresentationScores(codes, train, np.ones(12, bool))
        judged = np.ones(3, bool)
        observed, *null = (
            np.array(list(scorer.scores(g, judged).values()))
            for g in [groups, *(shuffled(groups, train, rng) for _ in range(n_shuffled))]
        )
        rank[i] = (1 + (np.array(null) >= observed - 1e-12).sum(0)) / (1 + n_shuffled)
    names = np.array(METRICS)
    steps = np.isin(names, ["singular", "singular_share", "singular_labels", "coverage"])
    limits = {q: 3.3 * np.sqrt(q * (1 - q) / n_sets) for q in (0.1, 0.3, 0.5, 0.7)}  # a metric's p are independent
    for q, limit in limits.items():
        share = (rank <= q + 1e-9).mean(0)
        assert share[steps].max() < q + limit
        assert np.abs(share[~steps] - q).max() < limit
