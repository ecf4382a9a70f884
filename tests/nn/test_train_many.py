"""Many trainings at once are the trainings alone."""

from __future__ import annotations

import numpy as np
import pytest

from sparsesc.nn import TrainConfig, train, train_many

CONFIGS = [
    TrainConfig(init="random", architecture="matryoshka", n_features=48, k=4, max_steps=40),
    TrainConfig(init="random", architecture="topk", n_features=100, k=6, max_steps=40),
    TrainConfig(init="random", architecture="batchtopk", n_features=48, k=3, max_steps=60, whiten=True),
    TrainConfig(init="random", architecture="relu", n_features=48, k=3, max_steps=20),
]


@pytest.fixture(scope="module")
def cells():
    return np.random.default_rng(0).normal(size=(900, 12)).astype(np.float32)


def generators(n):
    return [np.random.default_rng(i) for i in range(n)]


def test_each_has_the_bits_of_a_training_alone(cells):
    seen = set()
    many = train_many(
        cells[100:], CONFIGS, rngs=generators(4), X_validation=cells[:100], on_epoch=lambda i, row, p: seen.add(i)
    )
    assert seen == {0, 1, 2, 3}
    for config, result, rng in zip(CONFIGS, many, generators(4), strict=True):
        alone = train(cells[100:], config, X_validation=cells[:100], rng=rng)
        assert result.config == alone.config
        for name, value in alone.sae.weights.items():
            np.testing.assert_array_equal(result.sae.weights[name], value, err_msg=name)
        np.testing.assert_array_equal(result.history["validation_fvu"], alone.history["validation_fvu"])


def test_every_training_needs_a_generator(cells):
    with pytest.raises(ValueError, match="found 4 settings and 1 generators"):
        train_many(cells, CONFIGS, rngs=generators(1))


def test_each_holds_out_its_own_cells(cells):
    aside = [np.arange(900) < 100, np.arange(900) >= 700]
    many = train_many(cells, CONFIGS[:2], rngs=generators(2), held_out=aside)
    for config, result, rng, mask in zip(CONFIGS[:2], many, generators(2), aside, strict=True):
        alone = train(cells[~mask], config, X_validation=cells[mask], rng=rng)
        np.testing.assert_array_equal(result.sae.W_dec, alone.sae.W_dec)
    with pytest.raises(ValueError, match="one mask a training"):
        train_many(cells, CONFIGS[:2], rngs=generators(2), held_out=aside[:1])


def test_an_error_in_one_is_raised(cells):
    def fail(i, row, progress):
        if i == 1:
            raise RuntimeError("from the caller")

    with pytest.raises(RuntimeError, match="from the caller"):
        train_many(cells, CONFIGS[:2], rngs=generators(2), on_epoch=fail)


def test_interrupted_trainings_are_given_back(cells):
    def interrupt(i, row, progress):
        raise KeyboardInterrupt

    results = train_many(cells, CONFIGS[3:], rngs=generators(1), on_epoch=interrupt)
    assert [r.interrupted for r in results] == [True]
