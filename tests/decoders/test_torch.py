"""Modules and functions as decoders: exact derivatives, evaluation mode, errors."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import torch

from sparsesc.decoders import Decoder, FunctionDecoder, TorchDecoder, as_decoder, log2_expression


@pytest.fixture
def module():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Dropout(0.5), torch.nn.Linear(16, 6)
        )


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    return anndata.AnnData(np.ones((9, 6), np.float32), obsm={"X_z": rng.normal(size=(9, 4)).astype(np.float32)})


def test_derivative_agrees_with_finite_differences(module, cells):
    decoder = as_decoder(cells, module.double(), use_rep="X_z")
    assert isinstance(decoder, TorchDecoder)
    Z = cells.obsm["X_z"].astype(np.float64)
    V = np.random.default_rng(1).normal(size=Z.shape)
    value, slope = decoder.jvp(Z, V)
    np.testing.assert_allclose(value, decoder.decode(Z))
    np.testing.assert_allclose(slope, (decoder.decode(Z + 1e-4 * V) - decoder.decode(Z - 1e-4 * V)) / 2e-4, atol=1e-6)


def test_module_is_evaluated_and_left_as_it_was(module, cells):
    decoder = as_decoder(cells, module, use_rep="X_z")
    assert (decoder.decode(cells.obsm["X_z"]) == decoder.decode(cells.obsm["X_z"])).all()
    assert all(part.training for part in module.modules())


def test_function_of_arrays_has_derivatives_too(cells):
    decoder = as_decoder(cells, lambda Z: np.tile(np.sin(Z).sum(1, keepdims=True), 6), use_rep="X_z")
    assert isinstance(decoder, FunctionDecoder)
    Z = cells.obsm["X_z"]
    V = np.random.default_rng(1).normal(size=Z.shape)
    V[0] = 0
    slope = decoder.jvp(Z, V)[1]
    np.testing.assert_allclose(slope[:, 0], (np.cos(Z) * V).sum(1), atol=1e-5)


def test_own_decoder_passes_through(cells):
    own = TorchDecoder(lambda z: z[:, :2], ["a", "b"], scale="linear")
    assert isinstance(own, Decoder)
    assert as_decoder(cells, own, use_rep="X_z") is own


def test_logarithms_and_their_derivatives():
    share = np.array([[0.0, 1e-4, 0.2]])
    np.testing.assert_allclose(log2_expression(share, "proportions"), np.log2(1 + 1e4 * share))
    tangent = np.array([[0.1, -0.2, 0.3]])
    step = 1e-7
    rise = log2_expression(share + step * tangent, "proportions") - log2_expression(share, "proportions")
    got = log2_expression(share, "proportions", tangent)
    np.testing.assert_allclose(got[:, [1, 2]], rise[:, [1, 2]] / step, rtol=1e-2)
    np.testing.assert_allclose(log2_expression(tangent, "log1p"), tangent / np.log(2))
    assert (log2_expression(share, "linear", tangent) == tangent).all()
    with pytest.raises(ValueError, match=r"Unknown scale of a decoder: 'counts'. Choose one of 'log1p', 'proportions'"):
        log2_expression(share, "counts")


def test_errors_name_what_does_not_fit(cells):
    with pytest.raises(ValueError, match=r"gave shape \(1, 4\) for one cell, but there are 6 genes"):
        as_decoder(cells, lambda Z: Z, use_rep="X_z")
    with pytest.raises(ValueError, match=r"gives NaN or infinite values"):
        as_decoder(cells, lambda Z: np.full((len(Z), 6), np.nan), use_rep="X_z")
