"""The mixture of Gaussians against scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats
from sklearn.mixture import GaussianMixture as Reference

torch = pytest.importorskip("torch")

from sparsesc.models.dgd._mixture import GaussianMixture  # noqa: E402
from sparsesc.models.dgd._priors import log_dirichlet, log_precision_normal, log_softball  # noqa: E402


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


def test_blur_is_the_expectation_over_noise(mixture, Z):
    noise = 0.4 * np.random.default_rng(1).normal(size=(40_000, 1, 3))
    found = mixture.log_components(torch.from_numpy(Z[:2]), blur=0.4).numpy()
    noisy = torch.from_numpy(Z[:2] + noise)
    np.testing.assert_allclose(found, mixture.log_components(noisy).numpy().mean(0), rtol=0.02, atol=0.05)
    bound = mixture.log_density(torch.from_numpy(Z[:2]), blur=0.4).numpy()
    assert (bound <= mixture.log_density(noisy).numpy().mean(0) + 0.02).all()


def test_start_is_on_clusters_of_the_cells():
    rng = np.random.default_rng(0)
    centers, sizes, sd = np.array([[3.0, 0, 0], [0, -3, 0], [0, 0, 3]]), [60, 120, 240], [0.2, 0.5, 0.8]
    z = np.vstack([c + s * rng.normal(size=(n, 3)) for c, s, n in zip(centers, sd, sizes, strict=True)])
    with torch.random.fork_rng():
        found = GaussianMixture(3, 3, radius=2.0, hardness=5.0, sd=0.04, alpha=1.0)
    found.start_at(z.astype(np.float32), rng, blur=0.3)
    means, widths = found.means.detach().numpy(), (-0.5 * found.log_precisions.detach()).exp().numpy()
    order = [int(np.linalg.norm(means - c, axis=1).argmin()) for c in centers]
    np.testing.assert_allclose(means[order], centers, atol=0.3)
    np.testing.assert_allclose(found.log_weights.exp().detach().numpy()[order], np.array(sizes) / 420, atol=0.04)
    np.testing.assert_allclose(widths[order].mean(1), np.hypot(sd, 0.3), rtol=0.1)
    found.start_at(np.repeat(centers, 3, axis=0).astype(np.float32), rng)  # no width at all, no blur
    assert torch.isfinite(found.log_precisions).all()


def test_labeled_cells_have_the_density_of_their_component_and_its_weight(mixture, Z):
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
