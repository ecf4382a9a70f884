"""The relaxed archetypal dictionary: gradients, its bounds, and what is left of it after training."""

from __future__ import annotations

import numpy as np
import pytest

from sparsesc.nn import SparseAutoencoder, TrainConfig, train
from sparsesc.nn._engines import TorchEngine
from sparsesc.nn._initialize import initial_parameters, kmeans_centers
from sparsesc.nn.architectures import Archetypal
from sparsesc.nn.architectures._archetypal import OFFSET, initial_weights
from sparsesc.stats import match_features

F, K = 24, 3


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    X = rng.gamma(1, size=(600, 12)) @ rng.normal(size=(12, 12))
    return ((X - X.mean(0)) / X.std()).astype(np.float32)


@pytest.fixture
def engine(cells):
    config = TrainConfig(
        init="random", architecture="archetypal", n_features=F, k=K, noise=0.0, tie_strength=0.0
    ).complete(*cells.shape)
    arch, rng = Archetypal(config), np.random.default_rng(0)
    parameters = initial_parameters(cells, F, K, rng)
    parameters |= arch.extra_parameters(parameters, cells)
    return TorchEngine(cells, parameters, arch, config, 1000, rng, "cpu")


def test_starts_at_the_centers(engine, cells):
    p, centers = engine.parameters(), kmeans_centers(cells, F)
    assert centers.shape == (F, 12)
    np.testing.assert_array_equal(centers, kmeans_centers(cells, F))
    np.testing.assert_allclose(p["D"], centers / np.linalg.norm(centers, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(engine.arch.decoder(engine.p).detach().numpy(), p["D"], atol=1e-6)


def test_initial_weights_lie_on_the_simplex_and_differ():
    weights = initial_weights(30, 12)
    np.testing.assert_allclose(weights.sum(1), 1)
    assert len(np.unique(weights, axis=0)) == 30
    np.testing.assert_array_equal(weights[:12], np.eye(12))


@pytest.mark.parametrize("name", ["weights", "offset", "E"])
def test_gradients_are_those_of_finite_differences(engine, cells, name):
    import torch

    rng = np.random.default_rng(1)
    engine.p = {n: value.detach().double().requires_grad_() for n, value in engine.p.items()}
    engine.arch._on_device = torch.from_numpy(engine.arch.centers).double()
    with torch.no_grad():  # off the corner, so that every weight counts
        engine.p["weights"] += torch.from_numpy(rng.random((F, F)))
        engine.p["offset"] += torch.from_numpy(0.1 * rng.normal(size=(F, 12)))
    x = torch.from_numpy(cells[:64]).double()
    engine.loss(x, 0.5)[0].backward()
    assert engine.p["D"].grad is None
    direction = torch.from_numpy(rng.normal(size=engine.p[name].shape))
    slope = float((engine.p[name].grad * direction).sum())
    values = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            engine.p[name] += step * direction
            values.append(float(engine.loss(x, 0.5)[0]))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-3, abs=1e-7)


def test_rows_stay_near_mixtures_of_centers(engine):
    rng = np.random.default_rng(2)
    # far too fast, so that both bounds are met
    engine.run(rng.integers(600, size=(60, 64)), np.full(60, 0.05), np.full(60, 0.5))
    p = engine.parameters()
    share = p["weights"] / p["weights"].sum(1, keepdims=True)
    assert share.min() == 0
    mixture = share @ engine.arch.centers
    length, offset = np.linalg.norm(mixture, axis=1), np.linalg.norm(p["offset"], axis=1)
    assert (offset <= OFFSET * length * (1 + 1e-4)).all()
    assert np.isclose(offset, OFFSET * length, rtol=1e-4).any()
    rows = mixture + p["offset"]
    np.testing.assert_allclose(p["D"], rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-5)
    # the angle to the cone of the centers is bounded
    assert ((mixture * p["D"]).sum(1) / length >= np.sqrt(1 - OFFSET**2) - 1e-4).all()


def test_after_training_it_is_an_ordinary_autoencoder(cells, tmp_path):
    def fit(name, seed):
        config = TrainConfig(init="random", architecture=name, n_features=F, k=K, max_steps=300)
        rng = np.random.default_rng(seed)
        return train(cells[:540], config, X_validation=cells[540:], rng=rng)

    results = [fit("archetypal", seed) for seed in (0, 1)]
    sae = results[0].sae
    np.testing.assert_allclose(np.linalg.norm(sae.W_dec, axis=1), 1, atol=1e-5)
    sae.save(tmp_path / "sae")
    codes = SparseAutoencoder.load(tmp_path / "sae").encode(cells)
    np.testing.assert_array_equal(codes.toarray(), sae.encode(cells).toarray())
    assert codes.nnz / len(cells) == pytest.approx(K, rel=0.15)
    # other seeds lead to the same features, unlike those of random starts, at little cost
    plain = [fit("batchtopk", seed) for seed in (0, 1)]
    same, other = (match_features(a.sae.W_dec, b.sae.W_dec)[1].mean() for a, b in (results, plain))
    assert same > other + 0.05
    fvu = [min(r[0].history["validation_fvu"]) for r in (results, plain)]
    assert fvu[0] < fvu[1] + 0.05


def test_more_features_than_half_of_the_cells(cells):
    config = TrainConfig(init="random", architecture="archetypal", n_features=64, k=K, max_steps=20)
    sae = train(cells[:80], config, rng=np.random.default_rng(0)).sae
    assert sae.n_features == 64
    assert np.isfinite(sae.W_dec).all()
