"""Likelihoods of the modalities against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch")

from sparsesc.models.dgd._heads import HEADS  # noqa: E402

N, HIDDEN, FEATURES = 12, 4, 9


@pytest.fixture(scope="module")
def hidden():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(N, HIDDEN)))


def make(name):
    """A head with parameters of its own, in double precision."""
    rng = np.random.default_rng(1)
    head = HEADS[name](HIDDEN, FEATURES).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape)))
    return head


def values(name):
    rng = np.random.default_rng(2)
    if name == "gaussian":
        return rng.normal(size=(N, FEATURES))
    counts = rng.poisson(2, size=(N, FEATURES)).astype(float)
    return np.minimum(counts, 1) if name == "bernoulli" else counts


def expected(name, head, hidden, x, columns):
    """Log probabilities, cells x features, by scipy."""
    with torch.no_grad():
        output = head.linear(hidden).numpy()[:, columns]
    if name == "gaussian":
        return stats.norm.logpdf(x, output, head.log_sd.detach().exp().numpy()[columns])
    if name == "bernoulli":
        return stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-output)))
    share = np.exp(output) / np.exp(output).sum(1, keepdims=True)
    mean, r = share * x.sum(1, keepdims=True), head.log_dispersion.detach().exp().numpy()[columns]
    return stats.nbinom.logpmf(x, r, r / (r + mean))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("columns", [None, [0, 3, 4, 8]])
def test_log_probability_is_scipys(name, columns, hidden):
    """Also for cells in which only some features were measured: of counts, shares are those among these."""
    head, picked = make(name), np.arange(FEATURES) if columns is None else np.array(columns)
    x = values(name)[:, picked]
    found = head.log_prob(hidden, torch.from_numpy(x), None if columns is None else torch.tensor(columns))
    np.testing.assert_allclose(found.detach().numpy(), expected(name, head, hidden, x, picked).sum(1), rtol=1e-8)


@pytest.mark.parametrize("name", HEADS)
def test_gradients_are_right(name, hidden):
    head, x = make(name), torch.from_numpy(values(name))
    inputs = hidden.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda h: head.log_prob(h, x), (inputs,))
    head.log_prob(inputs, x).sum().backward()
    for parameter in head.parameters():
        step = torch.zeros_like(parameter)
        step.view(-1)[0] = 1e-6
        with torch.no_grad():
            parameter += step
            up = head.log_prob(hidden, x).sum()
            parameter -= 2 * step
            down = head.log_prob(hidden, x).sum()
            parameter += step
        assert float(parameter.grad.view(-1)[0]) == pytest.approx(float((up - down) / 2e-6), abs=1e-4)


def test_cells_without_counts_weigh_nothing_and_break_nothing(hidden):
    head = make("nb")
    inputs = hidden.clone().requires_grad_()
    found = head.log_prob(inputs, torch.zeros(N, FEATURES, dtype=torch.float64))
    found.sum().backward()
    assert torch.equal(found, torch.zeros(N, dtype=torch.float64))
    assert torch.equal(inputs.grad, torch.zeros_like(inputs))


@pytest.mark.parametrize("name", HEADS)
def test_start_gives_the_mean_cell(name):
    head = make(name)
    mean = torch.from_numpy(values(name).mean(0).clip(1e-3) if name != "gaussian" else values(name).mean(0))
    head.start_at(mean)
    found = head.expected(torch.zeros(1, HIDDEN, dtype=torch.float64)).detach()[0]
    torch.testing.assert_close(found, mean / mean.sum() if name == "nb" else mean, atol=2e-4, rtol=1e-6)
