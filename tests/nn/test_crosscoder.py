"""Properties of a dictionary over several embeddings, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from sparsesc.nn import SparseAutoencoder
from sparsesc.nn._crosscoder import best_passes, block_fvu, complete, contributions, decoder_shares, gains
from sparsesc.nn._metrics import fraction_unexplained

COLUMNS = [slice(0, 4), slice(4, 7)]


@pytest.fixture
def sae():
    rng = np.random.default_rng(0)
    D = rng.normal(size=(12, 7))
    D[:3, 4:] = 0  # of the first embedding alone
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    bias = rng.normal(size=7)
    return SparseAutoencoder(0.5 * D.T, np.zeros(12), D, bias, np.full(12, 0.3))


@pytest.fixture
def X():
    return np.random.default_rng(1).normal(size=(50, 7)).astype(np.float32)


def test_shares_are_those_of_the_squared_length(sae):
    shares = decoder_shares(sae, COLUMNS)
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose(shares[:3], [[1, 0]] * 3, atol=1e-12)
    assert shares[5, 1] == pytest.approx((sae.W_dec[5, 4:] ** 2).sum(), rel=1e-5)


def test_gain_is_what_is_lost_without_the_feature(sae, X):
    codes = sae.encode(X)
    table = gains(sae, X, codes, COLUMNS)
    for feature in range(12):
        ablated = codes.toarray()
        ablated[:, feature] = 0
        lost = block_fvu(X, sae.decode(ablated), COLUMNS) - block_fvu(X, sae.decode(codes), COLUMNS)
        np.testing.assert_allclose(table[feature], lost, atol=1e-5)
    assert (table[:3, 1] == 0).all()


def test_contributions_add_up_to_the_pre_activation(sae, X):
    total = sum(contributions(sae, X, part) for part in COLUMNS) + sae.b_enc
    np.testing.assert_allclose(total, (X - sae.b_dec) @ sae.W_enc + sae.b_enc, atol=1e-5)


def test_fvu_of_each_embedding(sae, X):
    X_hat = sae.reconstruct(X)
    expected = [fraction_unexplained(X[:, part], X_hat[:, part]) for part in COLUMNS]
    np.testing.assert_array_equal(block_fvu(X, X_hat, COLUMNS), expected)


def test_completion_starts_at_the_bias_and_uses_only_what_is_given(sae, X):
    first = complete(sae, X, COLUMNS[0], 3)
    start = X.copy()
    start[:, 4:] = sae.b_dec[4:]
    np.testing.assert_array_equal(first[0], sae.reconstruct(start))  # as it was returned, not as it was overwritten
    start[:, 4:] = first[0][:, 4:]
    np.testing.assert_array_equal(first[1], sae.reconstruct(start))
    other = X.copy()
    other[:, 4:] = 9
    np.testing.assert_array_equal(first[2], complete(sae, other, COLUMNS[0], 3)[2])


def test_passes_are_those_with_the_smallest_error(sae, X):
    n_passes = best_passes(sae, X, COLUMNS[0], [COLUMNS[1]])
    errors = [block_fvu(X, filled, [COLUMNS[1]])[0] for filled in complete(sae, X, COLUMNS[0], 10)]
    assert errors[n_passes - 1] == min(errors)
