"""Random sets: as many genes of each stratum, each gene as likely as any other of it."""

from __future__ import annotations

import numpy as np
import pytest

from sparsesc.studies.saliency._random_sets import RandomSets, Strata

GENES = 300


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    return [rng.permutation(GENES)[:size] for size in (5, 6, 40, 41, 120)]


@pytest.fixture(scope="module")
def strata():
    return Strata.by_rank(np.random.default_rng(1).gamma(1, size=GENES), 7)


def drawn(null, number, strata, n):
    """Members of the draws for one set, as they go to the kernel."""
    wanted = np.array([null.size[number]]) if strata is None else null._wanted[number]
    return null._drawn(number, wanted, 0, n).reshape(n, -1)


def test_strata_are_equal_parts_along_the_ranks(strata):
    sizes = np.diff(strata.starts)
    assert sizes.sum() == GENES
    assert sizes.max() - sizes.min() <= 1
    values = np.random.default_rng(1).gamma(1, size=GENES)
    of = strata.of_genes()
    for s in range(6):
        assert values[of == s].max() <= values[of == s + 1].min()


def test_draws_keep_the_strata_and_repeat_no_gene(sets, strata):
    null = RandomSets(sets, strata, seed=1)
    of = strata.of_genes()
    for number, genes in enumerate(sets):
        members = drawn(null, number, strata, 50)
        assert (np.sort(of[members], axis=1) == np.sort(of[genes])).all()
        assert all(len(set(row)) == len(row) for row in members)


def test_every_gene_of_a_stratum_is_as_likely(sets, strata):
    null = RandomSets(sets, strata, seed=2)
    of = strata.of_genes()
    n = 20_000
    counts = np.bincount(drawn(null, 2, strata, n).ravel(), minlength=GENES)
    wanted = np.bincount(of[sets[2]], minlength=7) / np.bincount(of, minlength=7)
    share = wanted[of]
    z = (counts - n * share) / np.sqrt(n * share * (1 - share) + 1e-12)
    assert np.abs(z[(share > 0) & (share < 1)]).max() < 4.5
    assert (counts[share == 0] == 0).all()


@pytest.mark.parametrize("stratified", [False, True])
def test_medians_are_those_of_the_drawn_sets(sets, strata, stratified):
    null = RandomSets(sets, strata if stratified else Strata.one(GENES), seed=3)
    values = np.random.default_rng(4).standard_normal((3, GENES)).astype(np.float32)
    which = np.array([1, 3])
    found = null.medians(values, np.array([0, 1, 0]), 2, which=which, first=0, stop=20)
    for i, number in enumerate(which):
        if stratified:
            members = drawn(null, number, strata, 20)
        else:
            members = null._drawn(0, np.array([120]), 0, 20).reshape(20, -1)[:, : null.size[number]]
        medians = np.median(values.astype(float)[:, members], axis=2)
        np.testing.assert_allclose(found[0, i], medians[0] + medians[2], atol=1e-12)
        np.testing.assert_allclose(found[1, i], medians[1], atol=1e-12)


@pytest.mark.parametrize("stratified", [False, True])
def test_draws_depend_on_the_seed_alone(sets, strata, stratified):
    of = strata if stratified else Strata.one(GENES)
    values = np.random.default_rng(4).standard_normal((2, GENES)).astype(np.float32)
    group = np.zeros(2, np.int64)
    every = RandomSets(sets, of, seed=3).medians(values, group, 1, which=np.arange(5), first=0, stop=10)
    some = RandomSets(sets, of, seed=3).medians(values, group, 1, which=np.array([0, 2]), first=0, stop=10)
    other = RandomSets(sets, of, seed=4).medians(values, group, 1, which=np.arange(5), first=0, stop=10)
    np.testing.assert_array_equal(some, every[:, [0, 2]])
    assert not np.array_equal(every, other)
