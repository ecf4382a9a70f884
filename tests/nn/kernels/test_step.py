"""The compiled training step against automatic gradients of the plain formula."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from sparsesc.nn import ARCHITECTURES, TrainConfig, train
from sparsesc.nn._engines import SparseEngine, TorchEngine
from sparsesc.nn.kernels import _workspace
from sparsesc.nn.kernels._processor import compiled_bfloat16_product
from sparsesc.nn.kernels._step import DEAD as DEAD_FEATURES
from sparsesc.nn.kernels._step import FETCH, LOSS, NORM, REST
from sparsesc.nn.kernels._threads import one_thread
from sparsesc.nn.kernels._workspace import SparseStep

B, D, F, K, K_AUX = 96, 20, 64, 4, 5
DEAD = slice(40, 60)


def make_step(dtype, *, by_batch=True, widths=(F,), weights=None, dead=False, d=D, scale=1.0):
    """A step on one batch of cells, which it sees with noise; also what it starts from."""
    rng = np.random.default_rng(0)
    decoder = rng.normal(size=(F, d)).astype(dtype)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    start = {
        "E": (decoder + 0.1 * rng.normal(size=(F, d))).astype(dtype),
        "D": decoder,
        "b_enc": (0.1 * rng.normal(size=F)).astype(dtype),
        "b_dec": (0.1 * rng.normal(size=d)).astype(dtype),
    }
    X = (scale * rng.normal(size=(B, d))).astype(dtype)
    noise = (0.3 * rng.normal(size=B * d)).astype(dtype)
    if dead:
        start["E"][DEAD] *= 0.1  # rarely among the largest
    step = SparseStep(
        X,
        **start,
        k=K,
        batch_size=B,
        by_batch=by_batch,
        widths=np.array(widths),
        weights=weights,
        k_aux=K_AUX,
        aux_weight=1 / 32,
        dead_after=1000,
        clip=1.0,
        noise=noise,
    )
    if dead:
        step.buffers.silent[DEAD] = 2000
    return step, start, X, X + noise.reshape(B, d)


def take(step, lr=0.0):
    """The report of one step on all cells; with the product by another library where it is not part of the step."""
    rows, noise_at, rate = np.arange(B)[None], np.zeros(1, np.int64), np.full(1, lr)
    if step.compiled_product:
        return step.run(rows, noise_at, rate)[0]
    step.run(rows, noise_at, rate, FETCH)
    step.buffers.pre[:] = step.buffers.seen_rows @ step.buffers.E.T
    return step.run(rows, noise_at, rate, REST)[0]


def autograd(start, X, seen, *, by_batch, widths, dead, weights=None):
    """Loss and gradients of the definition, dense, by torch."""
    p = {name: torch.tensor(value, requires_grad=True) for name, value in start.items()}
    x, s = torch.tensor(X), torch.tensor(seen)
    positive = torch.relu((s - p["b_dec"]) @ p["E"].T + p["b_enc"])
    if by_batch:
        limit = positive.flatten().topk(K * B).values[-1]
        codes = positive * (positive >= limit)
    else:
        top = positive.topk(K, dim=1)
        codes = torch.zeros_like(positive).scatter(1, top.indices, top.values)
    weights = [1 / len(widths)] * len(widths) if weights is None else weights
    errors = [((codes[:, :n] @ p["D"][:n] + p["b_dec"] - x) ** 2).mean() for n in widths]
    loss = sum(float(w) * e for w, e in zip(weights, errors, strict=True))
    if dead:
        residual = (x - codes @ p["D"] - p["b_dec"]).detach()
        mask = torch.zeros(F, dtype=torch.bool)
        mask[DEAD] = True
        top = (positive * mask).topk(K_AUX, dim=1)
        revived = torch.zeros_like(positive).scatter(1, top.indices, top.values) @ p["D"]
        loss = loss + ((residual - revived) ** 2).mean() / 32
    loss.backward()
    gradients = {name: value.grad.numpy() for name, value in p.items()}
    gradients["D"] = gradients["D"] - (gradients["D"] * start["D"]).sum(1, keepdims=True) * start["D"]
    return float(loss.detach()), gradients


@pytest.mark.parametrize("dead", [False, True], ids=["all alive", "some dead"])
@pytest.mark.parametrize(
    ("widths", "weights"), [([F], None), ([8, 16, F], np.array([0.1, 0.2, 0.7]))], ids=["plain", "nested"]
)
@pytest.mark.parametrize("by_batch", [True, False], ids=["batch", "row"])
@pytest.mark.parametrize(("d", "compiled"), [(10, True), (D, True), (40, True), (70, True), (70, False)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-5)])
def test_gradients_are_those_of_the_definition(
    monkeypatch, dtype, tolerance, d, compiled, by_batch, widths, weights, dead
):
    monkeypatch.setattr(_workspace, "compiled_product", lambda d: compiled)  # whatever this processor would take
    with one_thread() if dtype == np.float64 else nullcontext():
        step, start, X, seen = make_step(dtype, by_batch=by_batch, widths=widths, weights=weights, dead=dead, d=d)
        report = take(step)
    loss, expected = autograd(start, X, seen, by_batch=by_batch, widths=widths, weights=weights, dead=dead)
    assert report[LOSS] == pytest.approx(loss, rel=max(tolerance, 1e-9))
    assert report[DEAD_FEATURES] == (20 if dead else 0)
    gradients = step.gradients()
    for name, value in expected.items():
        assert np.abs(gradients[name] - value).max() < tolerance * np.abs(value).max(), name
    squared = sum(float(np.square(v).sum()) for v in expected.values())
    assert report[NORM] == pytest.approx(squared**0.5, rel=1e-4)
    for name, value in step.parameters().items():
        np.testing.assert_array_equal(value, start[name])  # a rate of zero moves nothing


def test_dead_features_learn_only_through_the_auxiliary_loss():
    for dead in (False, True):
        step, *_ = make_step(np.float32, dead=True)
        if not dead:
            step.buffers.silent[:] = 0
        take(step)
        fired = step.buffers.silent[DEAD] == 0
        moved = np.abs(step.gradients()["E"][DEAD]).max(1) > 0
        assert moved[~fired].any() == dead


def test_decoder_rows_keep_unit_norm_and_clipping_bounds_the_step():
    step, start, *_ = make_step(np.float32, scale=100)
    report = take(step, 1e-3)
    assert report[NORM] > 1
    after = step.parameters()
    np.testing.assert_allclose(np.linalg.norm(after["D"], axis=1), 1, atol=1e-6)
    assert 0 < np.abs(after["E"] - start["E"]).max() < 2e-3


@pytest.mark.parametrize("name", ["topk", "matryoshka"])
def test_one_thread_gives_the_same_bits_as_all(name):
    X = np.random.default_rng(0).normal(size=(900, 33)).astype(np.float32)
    config = TrainConfig(init="random", architecture=name, n_features=100, k=4, max_steps=60)
    alone, together = [], []
    for results, where in ((together, nullcontext()), (alone, one_thread())):
        with where:
            results.append(train(X[100:], config, X_validation=X[:100], rng=np.random.default_rng(0)))
    for weight, value in together[0].sae.weights.items():
        np.testing.assert_array_equal(alone[0].sae.weights[weight], value, err_msg=weight)


@pytest.mark.parametrize("name", ["topk", "batchtopk", "matryoshka"])
def test_both_engines_take_the_same_steps(name):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 12)).astype(np.float32)
    decoder = rng.normal(size=(48, 12)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    config = TrainConfig(init="random", architecture=name, n_features=48, k=4, batch_size=200, noise=0.0).complete(
        600, 12
    )
    start = {"E": 0.5 * decoder, "D": decoder, "b_enc": np.zeros(48, np.float32), "b_dec": np.zeros(12, np.float32)}
    arch = ARCHITECTURES[name](config)
    engines = [
        SparseEngine(X, {k: v.copy() for k, v in start.items()}, arch, config, 500, rng),
        TorchEngine(X, start, arch, config, 500, rng, "cpu"),
    ]
    batches = np.array([np.random.default_rng(i).permutation(600)[:200] for i in range(15)])
    for engine in engines:
        engine.run(batches, np.full(15, 1e-3), np.arange(15) / 15)
    sparse, dense = (engine.parameters() for engine in engines)
    for name_, value in dense.items():
        np.testing.assert_allclose(sparse[name_], value, atol=2e-4, err_msg=name_)
    np.testing.assert_allclose(engines[0].drain(), engines[1].drain(), rtol=1e-4)


@pytest.mark.skipif(not compiled_bfloat16_product(), reason="no bfloat16 instructions, or tile units")
@pytest.mark.parametrize("d", [70, 512])
def test_bfloat16_product_is_that_of_rounded_factors(d):
    rng = np.random.default_rng(0)
    cells, decoder = (rng.normal(size=(n, d)).astype(np.float32) for n in (B, F))
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    start = {"E": decoder, "D": decoder, "b_enc": np.zeros(F, np.float32), "b_dec": np.zeros(d, np.float32)}
    settings = {
        "k": K,
        "batch_size": B,
        "by_batch": False,
        "widths": np.array([F]),
        "k_aux": K_AUX,
        "clip": 1.0,
    }
    step = SparseStep(cells, **start, **settings, aux_weight=0.0, dead_after=1000, bfloat16=True)
    for rate in (1e-2, 0.0):  # the second product is with weights that a step has changed
        weights = step.parameters()
        take(step, rate)
        factors = [torch.from_numpy(part).bfloat16().double() for part in (cells - weights["b_dec"], weights["E"])]
        np.testing.assert_allclose(step.buffers.pre[:, :F], (factors[0] @ factors[1].T).numpy(), atol=1e-4)


def test_bfloat16_product_is_for_float32_parameters():
    weights = {"E": np.ones((F, D)), "D": np.ones((F, D)), "b_enc": np.zeros(F), "b_dec": np.zeros(D)}
    settings = {
        "k": K,
        "batch_size": B,
        "by_batch": False,
        "widths": np.array([F]),
        "k_aux": K_AUX,
        "clip": 1.0,
    }
    with pytest.raises(TypeError, match="float64"):
        SparseStep(np.ones((B, D)), **weights, **settings, aux_weight=0.0, dead_after=1000, bfloat16=True)
