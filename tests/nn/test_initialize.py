"""Where training starts, and what of it is left afterwards."""

from __future__ import annotations

import numpy as np
import pytest

from sparsesc.nn import TrainConfig, train
from sparsesc.nn._initialize import initial_parameters, kmeans_centers
from sparsesc.stats import match_features

F, K, D = 24, 3, 10


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    X = rng.gamma(1, size=(600, D)) @ rng.normal(size=(D, D))
    return ((X - X.mean(0)) / X.std()).astype(np.float32)


def directions(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_random_rows_are_the_first_draws(cells):
    start = initial_parameters(cells, F, K, np.random.default_rng(3))
    drawn = np.random.default_rng(3).normal(size=(F, D))
    np.testing.assert_allclose(start["D"], directions(drawn), atol=1e-6)
    nested = initial_parameters(cells, F, K, np.random.default_rng(3), init="random", widths=(6, F))
    for name, value in start.items():
        np.testing.assert_array_equal(nested[name], value)


def test_each_prefix_starts_at_as_many_centers_as_it_adds(cells):
    start = initial_parameters(cells, F, K, np.random.default_rng(0), init="kmeans", widths=(2, 8, F))
    for first, last in ((0, 2), (2, 8), (8, F)):
        centers = kmeans_centers(cells, last - first)
        assert centers.shape == (last - first, D)
        np.testing.assert_allclose(start["D"][first:last], directions(centers), atol=1e-5)
    # the encoder is parallel to the decoder, with one scale for all
    ratio = start["E"] / start["D"]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)
    assert ratio[0, 0] > 0
    again = initial_parameters(cells, F, K, np.random.default_rng(9), init="kmeans", widths=(2, 8, F))
    np.testing.assert_array_equal(again["D"], start["D"])


def test_without_a_center_or_its_direction_a_row_is_random(cells):
    few = cells[:20]  # at most ten centers
    start = initial_parameters(few, F, K, np.random.default_rng(0), init="kmeans")
    drawn = directions(np.random.default_rng(0).normal(size=(F, D)))
    np.testing.assert_allclose(start["D"][:10], directions(kmeans_centers(few, F)), atol=1e-5)
    np.testing.assert_allclose(start["D"][10:], drawn[10:], atol=1e-6)
    # one center for all cells is their mean
    alone = initial_parameters(cells, F, K, np.random.default_rng(0), init="kmeans", widths=(1, F))
    np.testing.assert_allclose(alone["D"][0], drawn[0], atol=1e-6)
    assert all(np.isfinite(value).all() for value in alone.values())


@pytest.mark.parametrize("architecture", ["matryoshka", "relu"])
def test_other_seeds_end_nearer_to_each_other_than_from_random_starts(cells, architecture):
    def fit(init, seed):
        config = TrainConfig(architecture=architecture, n_features=F, k=K, init=init, max_steps=300)
        return train(cells[:540], config, X_validation=cells[540:], rng=np.random.default_rng(seed))

    centered, random = ([fit(init, seed) for seed in (0, 1)] for init in ("kmeans", "random"))
    same, other = (match_features(a.sae.W_dec, b.sae.W_dec)[1].mean() for a, b in (centered, random))
    assert same > other + 0.05
    again = fit("kmeans", 0)
    for name, value in centered[0].sae.weights.items():
        np.testing.assert_array_equal(again.sae.weights[name], value)
    fvu = [min(r[0].history["validation_fvu"]) for r in (centered, random)]
    assert fvu[0] < fvu[1] + 0.05
