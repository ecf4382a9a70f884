"""Impact of sets: the published formula, and p-values among sets of which none is special."""

from __future__ import annotations

import numpy as np
import pytest

from sparsesc.studies.saliency._impact import SaliencyRows, difference_of_sets, impact_of_sets
from sparsesc.studies.saliency._medians import Ladders
from sparsesc.studies.saliency._random_sets import RandomSets, Strata

GENES, CELLS = 500, 8


def simulate(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Absolute saliency, cells x genes, larger for genes that are expressed more, and alike among cells."""
    rng = np.random.default_rng(seed)
    expression = rng.gamma(0.7, size=GENES)
    common = rng.standard_normal(GENES)
    values = (0.2 + expression) * np.abs(common + 0.5 * rng.standard_normal((CELLS, GENES)))
    return values.astype(np.float32), expression


def rows_of(values: np.ndarray, at_once: int = 100) -> SaliencyRows:
    return SaliencyRows(lambda part: values[part].copy(), len(values), at_once)


def random_sets(rng: np.random.Generator, expression: np.ndarray, strata: Strata | None, n: int) -> list[np.ndarray]:
    """Sets without meaning; with strata, sets of genes that are expressed much."""
    sizes = rng.integers(5, 60, n)
    if strata is None:
        return [rng.permutation(GENES)[:size] for size in sizes]
    of = strata.of_genes()
    high = np.flatnonzero(of >= of.max() // 2)
    return [rng.permutation(high)[:size] for size in sizes]


def test_impact_is_the_mean_over_cells_of_the_median_over_genes():
    values, expression = simulate(0)
    sets = random_sets(np.random.default_rng(0), expression, None, 5)
    null = RandomSets(sets, Strata.one(GENES), seed=0)
    found = impact_of_sets(rows_of(values, at_once=3), Ladders.of_sets(sets), null, 200)
    medians = np.stack([np.median(values[:, s].astype(float), axis=1) for s in sets], axis=1)
    np.testing.assert_allclose(found.medians, medians, rtol=1e-6)
    np.testing.assert_allclose(found.impact, medians.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.sd, medians.std(0, ddof=1), rtol=1e-6)
    np.testing.assert_allclose(found.by_gene, values.mean(0), rtol=1e-5)
    at_once = impact_of_sets(rows_of(values), Ladders.of_sets(sets), null, 200)
    np.testing.assert_array_equal(at_once.pval, found.pval)


@pytest.mark.parametrize("stratified", [False, True], ids=["any genes", "genes of the same expression"])
def test_impact_of_sets_without_meaning_has_uniform_p(stratified):
    rng = np.random.default_rng(0)
    p = []
    for seed in range(12):
        values, expression = simulate(seed)
        strata = Strata.by_rank(expression, 10) if stratified else Strata.one(GENES)
        sets = random_sets(rng, expression, strata if stratified else None, 1700)
        null = RandomSets(sets, strata, seed=seed)
        p.append(impact_of_sets(rows_of(values[:3]), Ladders.of_sets(sets), null, 200).pval)
    p = np.concatenate(p)
    assert len(p) > 20_000
    assert 0.03 < np.mean(p < 0.05) < 0.06
    assert 0.005 < np.mean(p < 0.01) < 0.013


def test_without_strata_sets_of_expressed_genes_look_like_findings():
    """What the strata are for."""
    values, expression = simulate(0)
    sets = random_sets(np.random.default_rng(1), expression, Strata.by_rank(expression, 10), 500)
    p = {
        name: impact_of_sets(rows_of(values), Ladders.of_sets(sets), RandomSets(sets, strata, seed=0), 200).pval
        for name, strata in {"any": Strata.one(GENES), "same": Strata.by_rank(expression, 10)}.items()
    }
    assert np.mean(p["any"] < 0.05) > 0.3
    assert np.mean(p["same"] < 0.05) < 0.1


def test_a_set_of_salient_genes_is_found():
    values, expression = simulate(3)
    rng = np.random.default_rng(0)
    strata = Strata.by_rank(expression, 10)
    sets = random_sets(rng, expression, strata, 40)
    values[:, sets[0]] *= 4
    found = impact_of_sets(rows_of(values), Ladders.of_sets(sets), RandomSets(sets, strata, seed=0), 1000)
    assert found.pval[0] < 1e-4
    assert found.score[0] > 4


def test_differences_of_sets_without_meaning_have_uniform_p():
    rng = np.random.default_rng(0)
    in_a = np.arange(CELLS) < 3
    in_b = np.arange(CELLS) > 4
    p = []
    for seed in range(10):
        values, expression = simulate(seed)
        values[in_a] *= 1.5  # all genes: random sets show it as well
        sets = random_sets(rng, expression, None, 2100)
        medians = np.stack([np.median(values[:, s], axis=1) for s in sets], axis=1)
        null = RandomSets(sets, Strata.one(GENES), seed=seed)
        p.append(difference_of_sets(rows_of(values), medians, in_a, in_b, null, 200)[1])
    p = np.concatenate(p)
    assert len(p) > 20_000
    assert 0.03 < np.mean(p < 0.05) < 0.06


def test_a_difference_is_found_and_has_its_sign():
    values, expression = simulate(5)
    in_a = np.arange(CELLS) < 4
    sets = random_sets(np.random.default_rng(0), expression, None, 20)
    values[np.ix_(in_a, sets[2])] *= 3
    values[np.ix_(~in_a, sets[7])] *= 3
    medians = np.stack([np.median(values[:, s], axis=1) for s in sets], axis=1)
    null = RandomSets(sets, Strata.one(GENES), seed=0)
    score, p = difference_of_sets(rows_of(values), medians, in_a, ~in_a, null, 1000)
    assert score[2] > 4
    assert score[7] < -4
    assert max(p[2], p[7]) < 0.02
