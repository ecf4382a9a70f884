"""Features that never fire move to the cells with the largest error."""

from __future__ import annotations

import numpy as np
import pytest

from sparsesc.nn import SparseAutoencoder, TrainConfig, train
from sparsesc.nn._metrics import fraction_unexplained
from sparsesc.nn._resample import resample_dead


@pytest.fixture(scope="module")
def cells():
    """Cells of 300 kinds in ten dimensions; the last 2,000 are held out."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(300, 10))
    used = rng.integers(300, size=(8000, 3))
    X = (directions[used] * rng.gamma(2, 1, size=(8000, 3, 1))).sum(1)
    X -= X.mean(0)
    return (X / X.std()).astype(np.float32)


@pytest.fixture(scope="module")
def trained(cells):
    """A training at a high rate, in which many features die."""
    config = TrainConfig(
        init="random", architecture="batchtopk", n_features=256, k=6, lr=8e-3, noise=0, tie_strength=0, max_steps=400
    )
    return train(cells[:6000], config, rng=np.random.default_rng(0)).sae


def weights_of(sae):
    return {
        "E": sae.W_enc.T.copy(), "D": sae.W_dec, "b_enc": sae.b_enc, "b_dec": sae.b_dec, "threshold": sae.threshold,
    }  # fmt: skip


def silent(sae, X):
    return np.bincount(sae.encode(X).indices, minlength=sae.n_features) == 0


def resampled(sae, X, rng=0):
    w = resample_dead(weights_of(sae), X, 6, np.random.default_rng(rng))
    return SparseAutoencoder(w["E"].T, w["b_enc"], w["D"], w["b_dec"], w["threshold"])


def test_silent_features_fire_in_unseen_cells_at_the_same_sparsity(cells, trained):
    assert silent(trained, cells[6000:]).mean() > 0.3
    after = resampled(trained, cells[:6000])
    assert silent(after, cells[6000:]).mean() < 0.05
    assert after.encode(cells[:6000]).nnz / 6000 == pytest.approx(6, rel=0.05)
    np.testing.assert_allclose(np.linalg.norm(after.W_dec, axis=1), 1, atol=1e-5)


def test_new_features_lower_the_error_beside_the_same_threshold(cells, trained):
    """The other features lose some cells to the higher threshold; the new features themselves only help."""
    X = cells[:6000]
    after = resampled(trained, X)
    new = after.threshold == 0
    assert new.sum() >= silent(trained, X).sum()
    codes = after.encode(X)
    without = codes.multiply(~new).tocsr()
    assert fraction_unexplained(X, after.decode(codes)) < fraction_unexplained(X, after.decode(without))
    # All other features are unchanged, except for a higher threshold.
    np.testing.assert_array_equal(after.W_dec[~new], trained.W_dec[~new])
    assert after.threshold[~new].min() >= trained.threshold.max()


def test_nothing_to_do(cells, trained):
    alive = resampled(trained, cells[:6000])
    again = resample_dead(weights_of(alive), cells[:6000], 6, np.random.default_rng(0))
    few = resample_dead(weights_of(trained), cells[:300], 6, np.random.default_rng(0))
    for name, value in weights_of(trained).items():
        np.testing.assert_array_equal(few[name], value)  # ten cells would be a large share of so few
    changed = (again["D"] != alive.W_dec).any(1)
    assert changed.mean() < 0.1


def test_training_option(cells):
    config = TrainConfig(
        init="random",
        architecture="batchtopk",
        n_features=256,
        k=6,
        lr=8e-3,
        noise=0,
        tie_strength=0,
        max_steps=200,
        resample_dead=True,
    )
    sae = train(cells[:6000], config, X_validation=cells[6000:], rng=np.random.default_rng(0)).sae
    assert silent(sae, cells[6000:]).mean() < 0.05
