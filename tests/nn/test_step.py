"""The compiled training step against automatic gradients of the plain formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparsesc.nn import ARCHITECTURES, TrainConfig
from sparsesc.nn._engines import SparseEngine, TorchEngine
from sparsesc.nn.kernels._workspace import SparseStep

B, D, F, K, K_AUX = 96, 20, 64, 4, 5
DEAD = slice(40, 60)


def make_step(dtype, *, by_batch, prefixes, dead):
    rng = np.random.default_rng(0)
    decoder = rng.normal(size=(F, D)).astype(dtype)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    step = SparseStep(
        E=(decoder + 0.1 * rng.normal(size=(F, D))).astype(dtype),
        D=decoder,
        b_enc=(0.1 * rng.normal(size=F)).astype(dtype),
        b_dec=(0.1 * rng.normal(size=D)).astype(dtype),
        k=K,
        batch_size=B,
        by_batch=by_batch,
        prefixes=np.array(prefixes),
        k_aux=K_AUX,
        aux_weight=1 / 32,
        dead_after=1000,
        clip=1.0,
    )
    if dead:
        step.silent[DEAD] = 2000
    return step


def autograd(step, X, seen, *, by_batch, dead):
    """Loss and gradients of the definition, dense, by torch."""
    E, D_, b_enc, b_dec = (torch.tensor(a, requires_grad=True) for a in (step.E, step.D, step.b_enc, step.b_dec))
    x, s = torch.tensor(X), torch.tensor(seen)
    pre = (s - b_dec) @ E.T + b_enc
    positive = torch.relu(pre)
    if by_batch:
        limit = positive.flatten().topk(K * B).values[-1]
        codes = positive * (positive >= limit)
    else:
        top = positive.topk(K, dim=1)
        codes = torch.zeros_like(positive).scatter(1, top.indices, top.values)
    loss = sum(((codes[:, :p] @ D_[:p] + b_dec - x) ** 2).mean() for p in step.prefixes) / len(step.prefixes)
    if dead:
        residual = (x - codes @ D_ - b_dec).detach()
        mask = torch.zeros(F, dtype=torch.bool)
        mask[DEAD] = True
        top = (positive * mask).topk(K_AUX, dim=1)
        revived = torch.zeros_like(positive).scatter(1, top.indices, top.values) @ D_
        loss = loss + ((residual - revived) ** 2).mean() / 32
    loss.backward()
    along = (D_.grad * D_).sum(1, keepdim=True) * D_
    return float(loss.detach()), {
        "grad_E": E.grad.numpy(),
        "grad_D": (D_.grad - along).detach().numpy(),
        "grad_b": b_enc.grad.numpy(),
        "grad_b_dec": b_dec.grad.numpy(),
    }


@pytest.mark.parametrize("dead", [False, True], ids=["all alive", "some dead"])
@pytest.mark.parametrize("prefixes", [[F], [8, 16, F]], ids=["plain", "nested"])
@pytest.mark.parametrize("by_batch", [True, False], ids=["batch", "row"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-5)])
def test_gradients_are_those_of_the_definition(dtype, tolerance, by_batch, prefixes, dead):
    step = make_step(dtype, by_batch=by_batch, prefixes=prefixes, dead=dead)
    rng = np.random.default_rng(1)
    X = rng.normal(size=(B, D)).astype(dtype)
    seen = (X + 0.3 * rng.normal(size=(B, D))).astype(dtype)
    loss, expected = autograd(step, X, seen, by_batch=by_batch, dead=dead)
    report = step.gradients(X, seen @ step.E.T, seen)
    assert report.loss == pytest.approx(loss, rel=max(tolerance, 1e-9))
    assert report.n_dead == (20 if dead else 0)
    for name, value in expected.items():
        error = np.abs(getattr(step, name) - value).max() / np.abs(value).max()
        assert error < tolerance, name
    squared = sum(float(np.square(v).sum()) for v in expected.values())
    assert report.gradient_norm == pytest.approx(squared**0.5, rel=1e-4)


def test_dead_features_learn_only_through_the_auxiliary_loss():
    X = np.random.default_rng(1).normal(size=(B, D))
    for dead in (False, True):
        step = make_step(np.float64, by_batch=True, prefixes=[F], dead=dead)
        step.E[DEAD] *= 1e-3  # positive at times, never among the largest
        step.b_enc[DEAD] = 0
        step.gradients(X, X @ step.E.T)
        assert (np.abs(step.grad_E[DEAD]).max() > 0) == dead


def test_decoder_rows_keep_unit_norm_and_clipping_bounds_the_step():
    step = make_step(np.float64, by_batch=True, prefixes=[F], dead=False)
    X = 100 * np.random.default_rng(1).normal(size=(B, D))
    before = step.E.copy()
    report = step.step(X, X @ step.E.T, 1e-3)
    assert report.gradient_norm > 1
    np.testing.assert_allclose(np.linalg.norm(step.D, axis=1), 1, atol=1e-12)
    assert np.abs(step.E - before).max() < 2e-3


@pytest.mark.parametrize("name", ["topk", "batchtopk", "matryoshka"])
def test_both_engines_take_the_same_steps(name):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 12)).astype(np.float32)
    decoder = rng.normal(size=(48, 12)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    config = TrainConfig(architecture=name, n_features=48, k=4, batch_size=200, noise=0.0).complete(600, 12)
    start = {"E": 0.5 * decoder, "D": decoder, "b_enc": np.zeros(48, np.float32), "b_dec": np.zeros(12, np.float32)}
    arch = ARCHITECTURES[name](config)
    engines = [
        SparseEngine(X, {k: v.copy() for k, v in start.items()}, arch, config, 500, rng),
        TorchEngine(X, start, arch, config, 500, rng, "cpu"),
    ]
    for i in range(15):
        rows = np.random.default_rng(i).permutation(600)[:200]
        for engine in engines:
            engine.step(rows, 1e-3, i / 15)
    sparse, dense = (engine.parameters() for engine in engines)
    for name_, value in dense.items():
        np.testing.assert_allclose(sparse[name_], value, atol=2e-4, err_msg=name_)
    np.testing.assert_allclose(engines[0].drain(), engines[1].drain(), rtol=1e-4)
