"""Priors of a mixture: closed forms, integrals, and the constant that the published soft ball lacks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, special, stats

torch = pytest.importorskip("torch")

from sparsesc.models.dgd._priors import log_dirichlet, log_precision_normal, log_softball, sample_ball  # noqa: E402


def published_softball(means, radius, hardness):
    """The formula as it was published: normalized as a ball with a sharp edge."""
    d = means.shape[-1]
    norm = math.lgamma(1 + d / 2) - d * (math.log(radius) + math.log(math.pi) / 2)
    return norm - torch.log(1 + torch.exp(hardness * (means.norm(dim=-1) / radius - 1)))


@pytest.mark.parametrize(("d", "radius", "hardness"), [(1, 2.0, 5.0), (2, 0.7, 1.0), (3, 2.0, 20.0), (20, 2.0, 5.0)])
def test_softball_integrates_to_one(d, radius, hardness):
    """In shells around the origin."""
    surface = 2 * np.pi ** (d / 2) / special.gamma(d / 2)

    def shell(r):
        at = torch.zeros(1, d, dtype=torch.float64)
        at[0, 0] = r
        return surface * r ** (d - 1) * float(log_softball(at, radius, hardness).exp())

    total, _ = integrate.quad(shell, 0, radius * (1 + (60 + 3 * d) / hardness), limit=300, points=[radius])
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("hardness", [1.0, 5.0, 100.0])
def test_softball_is_the_published_one_but_for_its_constant(hardness):
    torch_rng = torch.Generator().manual_seed(0)
    means = 3 * torch.randn(50, 6, dtype=torch.float64, generator=torch_rng)
    means.requires_grad_()
    ours, theirs = log_softball(means, 2.0, hardness), published_softball(means, 2.0, hardness)
    gap = (ours - theirs).detach()
    assert torch.allclose(gap, gap[0].expand_as(gap), atol=1e-9)
    # a sharp edge needs no other constant; a soft one does
    assert abs(float(gap[0])) < 0.02 if hardness == 100 else float(gap[0]) < -1
    torch.testing.assert_close(torch.autograd.grad(ours.sum(), means)[0], torch.autograd.grad(theirs.sum(), means)[0])


def test_softball_survives_far_away_and_many_dimensions():
    means = torch.full((2, 512), 100.0, requires_grad=True)
    value = log_softball(means, 2.0, 5.0)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(means.grad).all()
    assert torch.isfinite(log_softball(torch.zeros(1, 512), 2.0, 5.0)).all()


def test_points_of_the_ball_are_uniform():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        points = sample_ball(4000, 5, 2.0).numpy()
    length = np.linalg.norm(points, axis=1)
    assert length.max() <= 2
    assert stats.kstest((length / 2) ** 5, "uniform").pvalue > 0.001
    assert np.abs(points.mean(0)).max() < 0.1


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_weights_have_a_dirichlet_density(alpha):
    weights = np.random.default_rng(0).dirichlet(np.ones(5))
    expected = stats.dirichlet.logpdf(weights, np.full(5, alpha))
    assert float(log_dirichlet(torch.from_numpy(np.log(weights)), alpha)) == pytest.approx(expected, abs=1e-9)


def test_log_precisions_are_normal_around_that_of_the_standard_deviation():
    values = np.random.default_rng(0).normal(2, 2, size=(4, 3))
    expected = stats.norm.logpdf(values, -2 * np.log(0.3), 1).sum()
    assert float(log_precision_normal(torch.from_numpy(values), 0.3)) == pytest.approx(expected, abs=1e-9)
