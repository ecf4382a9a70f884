"""Training: every architecture learns, keeps its best state, and gives the same bits for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from sparsesc._train_config import default_k, default_matryoshka_widths, default_n_features
from sparsesc.nn import ARCHITECTURES, TrainConfig, train
from sparsesc.nn._metrics import fit_metrics, fraction_unexplained
from sparsesc.nn._train import Schedule
from sparsesc.nn.kernels._processor import bfloat16_is_faster

STEPS = 1200


@pytest.fixture(scope="module")
def sparse_cells():
    """Cells that are sparse combinations of 24 directions in 16 dimensions, and the directions."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(24, 16))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    use = rng.random((3000, 24)) < 2 / 24
    X = (use * rng.gamma(4, 0.5, size=use.shape)) @ directions + 0.02 * rng.normal(size=(3000, 16)) + 3
    return X[:2700].astype(np.float32), X[2700:].astype(np.float32), directions


def fit(cells, name, *, seed=0, **options):
    options = {"n_features": 48, "k": 3, "max_steps": STEPS, "noise": 0.1, "tie_strength": 1.0} | options
    config = TrainConfig(init="random", architecture=name, **options)
    return train(cells[0], config, X_validation=cells[1], rng=np.random.default_rng(seed))


@pytest.fixture(scope="module")
def fits(sparse_cells):
    return {name: fit(sparse_cells, name) for name in ARCHITECTURES}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_explains_unseen_cells_at_the_asked_sparsity(fits, sparse_cells, name):
    metrics = fit_metrics(fits[name].sae, sparse_cells[1])
    assert metrics["explained_variance"] > (0.5 if name == "relu" else 0.8)  # L1 shrinks
    assert 0.5 * 3 < metrics["l0"] < 1.4 * 3
    np.testing.assert_allclose(np.linalg.norm(fits[name].sae.W_dec, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["topk", "batchtopk", "matryoshka", "jumprelu"])
def test_the_directions_that_made_the_cells_are_found(fits, sparse_cells, name):
    found = np.abs(sparse_cells[2] @ fits[name].sae.W_dec.T).max(1)
    rng = np.random.default_rng(7)
    random = rng.normal(size=(48, 16))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    chance = np.abs(sparse_cells[2] @ random.T).max(1)
    # The first features of nested dictionaries stand for several directions at once.
    least, more = (0.75, 0.15) if name == "matryoshka" else (0.85, 0.2)
    assert np.median(found) > least
    assert found.mean() > chance.mean() + more


def test_history(fits):
    for result in fits.values():
        history = result.history
        n = len(history["epoch"])
        assert history["epoch"].tolist() == list(range(n))
        assert all(len(column) == n for column in history.values())
        assert history["train_fvu"][-1] < history["train_fvu"][0]
        assert history["lr"][-1] < history["lr"].max()
        assert result.n_steps == STEPS


def test_best_state_comes_back(sparse_cells):
    result = fit(sparse_cells, "batchtopk", lr=0.5, max_steps=300, noise=0.0)  # far too fast: the end is not the best
    assert result.best_epoch == np.argmin(result.history["validation_fvu"])
    fvu = fraction_unexplained(sparse_cells[1], result.sae.reconstruct(sparse_cells[1]))
    assert fvu == pytest.approx(result.history["validation_fvu"].min(), rel=0.1)


def test_same_seed_same_bits(sparse_cells):
    first, again, other = (fit(sparse_cells, "matryoshka", seed=s, max_steps=100) for s in (1, 1, 2))
    for name, value in first.sae.weights.items():
        np.testing.assert_array_equal(value, again.sae.weights[name])
    assert not np.array_equal(first.sae.W_dec, other.sae.W_dec)


def test_number_of_threads_changes_rounding_only(sparse_cells):
    import numba
    import torch

    before = numba.get_num_threads(), torch.get_num_threads()
    try:
        results = []
        for threads in (1, before[0]):
            numba.set_num_threads(threads)
            torch.set_num_threads(threads)
            results.append(fit(sparse_cells, "matryoshka", max_steps=50))
    finally:
        numba.set_num_threads(before[0])
        torch.set_num_threads(before[1])
    np.testing.assert_allclose(results[0].sae.W_dec, results[1].sae.W_dec, atol=1e-3)


def test_pull_toward_the_decoder_keeps_features_alive(sparse_cells):
    dead = [
        fit(sparse_cells, "batchtopk", n_features=256, tie_strength=tie_strength, lr=1e-2).history["dead_fraction"][-1]
        for tie_strength in (0.0, 15.0)
    ]
    assert dead[0] > 0.2
    assert dead[1] < 0.5 * dead[0]


def test_early_stop_winds_down(sparse_cells):
    result = fit(sparse_cells, "topk", max_steps=20_000, patience=5, lr=5e-3)
    assert result.n_steps < 20_000
    assert result.history["lr"][-1] < 0.1 * result.history["lr"].max()


def test_interruption_keeps_the_best_state(sparse_cells):
    def stop(row, progress):
        if row["epoch"] == 4:
            raise KeyboardInterrupt

    result = train(
        sparse_cells[0],
        TrainConfig(init="random", n_features=48, k=3, max_steps=STEPS),
        X_validation=sparse_cells[1],
        rng=np.random.default_rng(0),
        on_epoch=stop,
    )
    assert result.interrupted
    assert result.n_steps < STEPS
    assert np.isfinite(fit_metrics(result.sae, sparse_cells[1])["fvu"])


def test_fixed_penalty_sets_the_sparsity(sparse_cells):
    loose, tight = (fit(sparse_cells, "relu", penalty=p).sae.encode(sparse_cells[1]).nnz for p in (1e-3, 1.0))
    assert tight < 0.7 * loose


def test_bfloat16_product_costs_little(sparse_cells):
    float32, bfloat16 = (fit(sparse_cells, "batchtopk", precision=p) for p in ("float32", "bfloat16"))
    fvu = [fit_metrics(r.sae, sparse_cells[1])["fvu"] for r in (float32, bfloat16)]
    assert fvu[1] < fvu[0] + 0.03


def test_automatic_precision_is_that_of_the_processor(sparse_cells):
    rng = np.random.default_rng(3)
    wide = (sparse_cells[0] @ rng.normal(size=(16, 96)).astype(np.float32), sparse_cells[1] @ rng.normal(size=(16, 96)))
    for cells, is_bfloat16 in ((sparse_cells, False), (wide, bfloat16_is_faster(96))):
        cells = [part.astype(np.float32) for part in cells[:2]]
        automatic = fit(cells, "topk", max_steps=40).sae
        same = fit(cells, "topk", max_steps=40, precision="bfloat16" if is_bfloat16 else "float32").sae
        np.testing.assert_array_equal(automatic.W_enc, same.W_enc)


def test_schedule():
    schedule = Schedule(TrainConfig(max_steps=100, lr=1.0, warmup=0.1, decay=0.2))
    rates, progress = (np.concatenate(part) for part in zip(schedule.advance(37), schedule.advance(63), strict=True))
    assert schedule.done()
    np.testing.assert_allclose(progress, np.arange(100) / 100)
    rates = rates.tolist()
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:80] == [1.0] * 70
    assert rates[-1] == pytest.approx(0.05)


def test_metrics_of_known_reconstructions():
    X = np.random.default_rng(0).normal(size=(200, 5))
    assert fraction_unexplained(X, X) == 0
    assert fraction_unexplained(X, np.broadcast_to(X.mean(0), X.shape)) == pytest.approx(1)
    assert fraction_unexplained(X, X.mean(0) + 0.5 * (X - X.mean(0))) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("n", "d", "expected"), [(700, 50, 128), (3000, 10, 64), (100_000, 512, 2048), (100, 50, 25), (10_000, 128, 512)]
)
def test_default_width(n, d, expected):
    assert default_n_features(n, d) == expected


def test_default_sparsity_and_prefixes():
    assert [default_k(d, 4096) for d in (2, 10, 50, 512)] == [8, 8, 17, 32]
    assert [default_k(50, F) for F in (3, 32, 64)] == [1, 8, 16]
    assert default_matryoshka_widths(128, 50) == (8, 16, 32, 64, 128)
    assert default_matryoshka_widths(64, 10) == (16, 32, 64)
    assert default_matryoshka_widths(4, 50) == (1, 2, 4)


@pytest.mark.parametrize(
    ("d", "asked", "expected"),
    [(50, None, [1 / 12] * 4 + [2 / 3]), (10, None, [1 / 3] * 3), (10, 0.5, [0.25, 0.25, 0.5])],
)
def test_weights_of_prefixes(d, asked, expected):
    config = TrainConfig(init="random", n_features=64, k=8, full_width_weight=asked).complete(1000, d)
    np.testing.assert_allclose(config.width_weights(), expected)
    plain = TrainConfig(init="random", n_features=64, k=8, architecture="batchtopk").complete(1000, d)
    assert plain.width_weights() == [1]
