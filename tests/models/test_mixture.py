"""The mixture of Gaussians against scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats
from sklearn.mixture import GaussianMixture as Reference

torch = pytest.importorskip("torch")

from sparsesc.models._mixture import GaussianMixture  # noqa: E402
from sparsesc.models._priors import log_dirichlet, log_precision_normal, log_softball  # noqa: E402


@pytest.fixture(scope="module")
def mixture():
    """Four components in three dimensions, all parameters different."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = GaussianMixture(4, 3, radius=2.0, hardness=5.0, sd=0.5, alpha=2.0)
        with torch.no_grad():
            found.log_precisions += torch.randn(4, 3)
            found.logits += torch.randn(4)
    return found.double().requires_grad_(False)


@pytest.fixture(scope="module")
def Z():
    return np.random.default_rng(0).normal(size=(30, 3))


def log_components(mixture, Z):
    sd = np.exp(-0.5 * mixture.log_precisions.numpy())
    return np.column_stack(
        [stats.norm.logpdf(Z, mean, s).sum(1) for mean, s in zip(mixture.means.numpy(), sd, strict=True)]
    )


def test_density_is_that_of_a_mixture(mixture, Z):
    joint = log_components(mixture, Z) + mixture.log_weights.numpy()
    found = mixture.log_density(torch.from_numpy(Z)).numpy()
    np.testing.assert_allclose(found, special.logsumexp(joint, axis=1), rtol=1e-10)


def test_labelled_cells_have_the_density_of_their_component_and_its_weight(mixture, Z):
    labels = np.random.default_rng(1).integers(-1, 4, size=len(Z))
    found = mixture.log_density(torch.from_numpy(Z), torch.from_numpy(labels)).numpy()
    own = log_components(mixture, Z) + mixture.log_weights.numpy()
    np.testing.assert_allclose(found[labels >= 0], own[labels >= 0, labels[labels >= 0]], rtol=1e-10)
    free = mixture.log_density(torch.from_numpy(Z)).numpy()
    np.testing.assert_allclose(found[labels < 0], free[labels < 0], rtol=1e-10)
    assert (labels < 0).any()


def test_responsibilities_are_scikit_learns(mixture, Z):
    reference = Reference(4, covariance_type="diag")
    reference.weights_ = mixture.log_weights.exp().numpy()
    reference.means_ = mixture.means.numpy()
    reference.covariances_ = np.exp(-mixture.log_precisions.numpy())
    reference.precisions_cholesky_ = np.exp(0.5 * mixture.log_precisions.numpy())
    found = mixture.responsibilities(torch.from_numpy(Z)).numpy()
    np.testing.assert_allclose(found, reference.predict_proba(Z), atol=1e-10)


def test_prior_is_the_sum_of_its_parts(mixture):
    parts = [
        log_softball(mixture.means, 2.0, 5.0).sum(),
        log_precision_normal(mixture.log_precisions, 0.5),
        log_dirichlet(mixture.log_weights, 2.0),
    ]
    torch.testing.assert_close(mixture.log_prior(), torch.stack(parts).sum())


def test_draws_come_from_the_mixture(mixture):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = mixture.sample(20_000).numpy()
    weights = mixture.log_weights.exp().numpy()
    np.testing.assert_allclose(drawn.mean(0), weights @ mixture.means.numpy(), atol=0.05)
    share = mixture.responsibilities(torch.from_numpy(drawn)).numpy().mean(0)
    np.testing.assert_allclose(share, weights, atol=0.02)
